/** The app has another network than before: what became of what was learned, and the way back. */

import { useState } from 'preact/hooks';
import type { Version as Told } from '../protocol.js';
import { Ask } from './ask.js';

interface Given {
  readonly told: Told;
  readonly busy: boolean;
  readonly onBack: () => void;
  readonly onForward: () => void;
  readonly onClose: () => void;
}

export function Version({ told: { is, notes }, busy, onBack, onForward, onClose }: Given) {
  const [asking, setAsking] = useState(false);
  return (
    <section class="card accent" aria-labelledby="version">
      <h2 id="version">{is === 'carried' ? 'A new version' : 'The version before'}</h2>
      {is === 'carried' ? (
        <p>What was taught here was carried over to it, without any image.</p>
      ) : (
        <p>It knows what it knew before the new version came.</p>
      )}
      {notes.map((note) => (
        <p key={note} class="hint">
          {note}
        </p>
      ))}
      {asking ? (
        <Ask
          label="Go back to the version before?"
          yes="Go back"
          no="Stay"
          onYes={() => {
            setAsking(false);
            onBack();
          }}
          onNo={() => setAsking(false)}
        >
          Go back? What was taught since the new version came is forgotten.
        </Ask>
      ) : (
        <div class="row">
          {is === 'carried' ? (
            <>
              <button type="button" class="plain" disabled={busy} onClick={onClose}>
                Keep it
              </button>
              <button type="button" class="quiet" disabled={busy} onClick={() => setAsking(true)}>
                Go back
              </button>
            </>
          ) : (
            <button type="button" class="plain" disabled={busy} onClick={onForward}>
              Use the new version
            </button>
          )}
        </div>
      )}
    </section>
  );
}
