/** A task being learned. */

import type { TaskProgress } from '../protocol.js';
import { rounded } from '../wording.js';

const PHASES: { [phase in TaskProgress['phase']]: string } = {
  read: 'Reading the images',
  check: 'Checking them',
  select: 'Choosing what to train',
  train: 'Learning',
  consolidate: 'Remembering',
  test: 'Testing',
};

export function Progress({ progress, onStop }: { progress: TaskProgress; onStop: () => void }) {
  const { phase, done, epoch, epochs, loss } = progress;
  const training = phase === 'train';
  return (
    <section class="card accent" aria-labelledby="learning">
      <h2 id="learning">{PHASES[phase]}</h2>
      <progress max="1" value={training || phase === 'read' ? done : undefined} aria-labelledby="learning" />
      <p class="hint" role="status">
        {training ? `Round ${Math.max(1, epoch)} of ${epochs}, error ${rounded(loss, 2)}` : 'A moment'}
      </p>
      <div class="row">
        <button type="button" class="plain" onClick={onStop}>
          Stop
        </button>
      </div>
    </section>
  );
}
