/** What this device and others have learned, put together: a file for whoever merges, and what came of it. */

import { useRef, useState } from 'preact/hooks';
import type { FromFleet } from '../protocol.js';

const CALLED = 'name-in-the-fleet';

interface FleetProps {
  readonly learned: boolean;
  readonly busy: boolean;
  /** What was taken over just now. */
  readonly told: FromFleet | undefined;
  /** What stays here of what was saved just now, one sentence each. */
  readonly leftOut: readonly string[];
  readonly onSave: (name: string) => void;
  readonly onApply: (file: File) => void;
}

export function Fleet({ learned, busy, told, leftOut, onSave, onApply }: FleetProps) {
  const input = useRef<HTMLInputElement>(null);
  const [naming, setNaming] = useState(false);
  const [name, setName] = useState(() => localStorage.getItem(CALLED) ?? '');
  return (
    <>
      <h3>With other devices</h3>
      <p class="hint">
        What devices have learned can be put together, without any image: each saves a file, whoever looks
        after them merges the files, and each takes over what came of it.
      </p>
      <div class="row">
        {learned && !naming && (
          <button type="button" class="plain" disabled={busy} onClick={() => setNaming(true)}>
            Save for the fleet
          </button>
        )}
        <button type="button" class="plain" disabled={busy} onClick={() => input.current?.click()}>
          Take over what the fleet knows
        </button>
        <input
          ref={input}
          type="file"
          accept=".cskc"
          hidden
          aria-label="What the fleet knows"
          onChange={({ currentTarget }) => {
            const [file] = currentTarget.files ?? [];
            // The same file again is a change too.
            currentTarget.value = '';
            if (file) onApply(file);
          }}
        />
      </div>
      {naming && (
        <form
          class="draft"
          aria-label="Save for the fleet"
          onSubmit={(event) => {
            event.preventDefault();
            localStorage.setItem(CALLED, name.trim());
            setNaming(false);
            onSave(name.trim());
          }}
        >
          <div class="name-row">
            <label for="device-name">This device is called</label>
            <input
              id="device-name"
              type="text"
              autocomplete="off"
              maxLength={60}
              value={name}
              onInput={({ currentTarget }) => setName(currentTarget.value)}
            />
          </div>
          <div class="row">
            <button type="submit" class="plain" disabled={busy || !name.trim()}>
              Save
            </button>
            <button type="button" class="quiet" onClick={() => setNaming(false)}>
              Not now
            </button>
          </div>
        </form>
      )}
      {(told || leftOut.length > 0) && (
        <div class="told" role="status">
          {told && <p>{news(told)}</p>}
          {[...(told?.notes ?? []), ...leftOut].map((sentence) => (
            <p key={sentence} class="hint">
              {sentence}
            </p>
          ))}
        </div>
      )}
    </>
  );
}

function news({ changed, new: names }: FromFleet): string {
  if (!changed) return 'This is known here already.';
  return names.length ? `New here, from the fleet: ${names.join(', ')}.` : 'Nothing of it is new here.';
}
