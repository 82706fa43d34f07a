/** A task whose images are kept: it was interrupted, it looked wrong, or it contradicts what is known. */

import type { Unfinished as Task } from '../protocol.js';

interface Given {
  readonly task: Task;
  readonly onResume: (replace?: boolean) => void;
  readonly onDiscard: () => void;
}

const TITLES: { [why in Task['because']]: string } = {
  interrupted: 'An unfinished task',
  'mixed-up': 'A task that looks mixed up',
  contradicts: 'These look like something else',
  twin: 'This is known already',
};

export function Unfinished({ task: { classes, because, old }, onResume, onDiscard }: Given) {
  const names = <b>{classes.join(', ')}</b>;
  return (
    <section class="card accent" aria-labelledby="unfinished">
      <h2 id="unfinished">{TITLES[because]}</h2>
      {because === 'interrupted' && <p>Learning {names} was interrupted. Its images are still here.</p>}
      {because === 'mixed-up' && (
        <p>{names} were not learned. If each image is where it belongs, learn them anyway.</p>
      )}
      {because === 'contradicts' && (
        <p>
          {names} were not learned. If these images are right and what was taught here before is wrong,
          replace that. If they are images of another kind, add them.
        </p>
      )}
      {because === 'twin' && (
        <p>
          {names} looks like <b>{old}</b>, and was not learned. If it is the same thing, its images can be
          added to {old}. If not, it can be learned all the same, but the two will be mixed up.
        </p>
      )}
      <div class="row">
        {because === 'twin' && (
          <>
            <button type="button" class="plain" onClick={() => onResume(false)}>
              Add them to {old}
            </button>
            <button type="button" class="plain" onClick={() => onResume(true)}>
              Learn it anyway
            </button>
          </>
        )}
        {because === 'interrupted' && (
          <button type="button" class="main" onClick={() => onResume()}>
            Go on learning
          </button>
        )}
        {because === 'mixed-up' && (
          <button type="button" class="plain" onClick={() => onResume()}>
            Learn them anyway
          </button>
        )}
        {because === 'contradicts' && (
          <>
            <button type="button" class="plain" onClick={() => onResume(true)}>
              Replace it
            </button>
            <button type="button" class="plain" onClick={() => onResume(false)}>
              Add them
            </button>
          </>
        )}
        <button type="button" class="quiet" onClick={onDiscard}>
          Discard it
        </button>
      </div>
    </section>
  );
}
