/** A task whose images are kept: it was interrupted, or it looked wrong. */

import type { Known } from '../protocol.js';

interface Given {
  readonly task: NonNullable<Known['unfinished']>;
  readonly onResume: () => void;
  readonly onDiscard: () => void;
}

export function Unfinished({ task: { classes, refused }, onResume, onDiscard }: Given) {
  return (
    <section class="card accent" aria-labelledby="unfinished">
      <h2 id="unfinished">{refused ? 'A task that looks mixed up' : 'An unfinished task'}</h2>
      <p>
        {refused ? (
          <>
            <b>{classes.join(', ')}</b> were not learned. If each image is where it belongs, learn them
            anyway.
          </>
        ) : (
          <>
            Learning <b>{classes.join(', ')}</b> was interrupted. Its images are still here.
          </>
        )}
      </p>
      <div class="row">
        <button type="button" class={refused ? 'plain' : 'main'} onClick={onResume}>
          {refused ? 'Learn them anyway' : 'Go on learning'}
        </button>
        <button type="button" class="quiet" onClick={onDiscard}>
          Discard it
        </button>
      </div>
    </section>
  );
}
