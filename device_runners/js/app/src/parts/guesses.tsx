/** Probabilities as bars. */

import type { Guess } from '../protocol.js';
import { percent } from '../wording.js';

export function Guesses({ guesses }: { guesses: readonly Guess[] }) {
  return (
    <ol class="guesses" aria-label="What this is, the most probable first">
      {guesses.map(({ label, probability }) => (
        <li key={label}>
          <span class="name">{label}</span>
          <span class="number">{percent(probability)}</span>
          <meter min="0" max="1" value={probability} aria-hidden="true" />
        </li>
      ))}
    </ol>
  );
}
