/** What a task brought: accuracy per class on the images kept back, before and after. */

import type { TaskReport } from '../protocol.js';
import { percent } from '../wording.js';
import { Thumbnail } from './pictures.js';

const SHOWN = 8;
// Of fewer images that are taken for another class nothing is said.
const MIXED_UP = 0.1;

interface Given {
  readonly report: TaskReport;
  readonly onMerge: (into: string, other: string) => void;
  readonly onForget: (name: string) => void;
  readonly onClose: () => void;
}

export function Report({ report, onMerge, onForget, onClose }: Given) {
  const { classes, tested, seconds, learnedFrom, remarks, lost, twins } = report;
  return (
    <section class="card accent" aria-labelledby="report">
      <h2 id="report">Learned</h2>
      <p class="hint">
        From {learnedFrom} images in {seconds.toFixed(1)} s. Tested on {tested.length} that it had not seen,
        among all classes it knows.
      </p>
      {remarks.map((sentence) => (
        <p key={sentence} class="remark">
          {sentence}
        </p>
      ))}
      {twins.map(({ name, old, apart }) => (
        <div key={name} class="remark">
          <p>
            <b>{name}</b> cannot be told from <b>{old}</b>, so{' '}
            {apart ? `${name} is left out of answers` : 'answers will mix the two up'}. Is it the same thing?
          </p>
          <div class="row">
            <button type="button" class="plain" onClick={() => onMerge(old, name)}>
              Yes, call it {old}
            </button>
            <button type="button" class="plain" onClick={() => onForget(name)}>
              No, forget {name}
            </button>
          </div>
        </div>
      ))}
      <table>
        <thead>
          <tr>
            <th scope="col">Class</th>
            <th scope="col">Right</th>
            <th scope="col">Accuracy</th>
            <th scope="col">Expected</th>
          </tr>
        </thead>
        <tbody>
          {classes.map(({ name, right, tested, expected }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>
                {right} of {tested}
              </td>
              <td>{tested ? percent(right / tested) : '–'}</td>
              <td>
                {expected ? percent(expected.allClasses) : '–'}
                {expected && (
                  <small>
                    {percent(expected.task)} among these
                    {expected.share >= MIXED_UP && `; ${percent(expected.share)} called ${expected.confused}`}
                  </small>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="hint">
        Expected: how often each will be named right among all classes, judged by its own images, one left out
        at a time.
        {lost !== undefined &&
          ` What was known before ${lost >= 0.5 ? `loses about ${lost.toFixed(0)} points` : 'loses next to nothing'}.`}
      </p>
      <h3>Before and after</h3>
      <ul class="compared">
        {picked(tested).map(({ picture, truth, before, after }, index) => (
          <li key={`${truth} ${index}`}>
            <Thumbnail file={picture} alt={`An image of ${truth}`} />
            <span class="before">
              <span class="unseen">before: </span>
              {before.label} {percent(before.probability)}
            </span>
            <span class={after.label === truth ? 'right' : 'wrong'}>
              <span class="unseen">after: </span>
              {after.label} {percent(after.probability)}
            </span>
          </li>
        ))}
      </ul>
      <div class="row">
        <button type="button" class="plain" onClick={onClose}>
          Done
        </button>
      </div>
    </section>
  );
}

/** Some of each class, not the first class alone. */
function picked(tested: TaskReport['tested']): TaskReport['tested'] {
  const step = Math.max(1, tested.length / SHOWN);
  return Array.from(
    { length: Math.min(SHOWN, tested.length) },
    (_, index) => tested[Math.floor(index * step)]!,
  );
}
