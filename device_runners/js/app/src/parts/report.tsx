/** What a task brought: accuracy per class on the images kept back, before and after. */

import type { TaskReport } from '../protocol.js';
import { percent } from './guesses.js';
import { Thumbnail } from './pictures.js';

const SHOWN = 8;

export function Report({ report, onClose }: { report: TaskReport; onClose: () => void }) {
  const { classes, tested, seconds, learnedFrom, remarks } = report;
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
      <table>
        <thead>
          <tr>
            <th scope="col">Class</th>
            <th scope="col">Right</th>
            <th scope="col">Accuracy</th>
          </tr>
        </thead>
        <tbody>
          {classes.map(({ name, right, tested }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>
                {right} of {tested}
              </td>
              <td>{tested ? percent(right / tested) : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
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
