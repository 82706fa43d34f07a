/** What was learned as a file: to keep it, to take it to another device, and back. */

import { useRef, useState } from 'preact/hooks';
import { Ask } from './ask.js';

interface SavingProps {
  /** Classes that were learned here. */
  readonly learned: readonly string[];
  readonly busy: boolean;
  readonly onSave: () => void;
  readonly onOpen: (file: File) => void;
}

export function Saving({ learned, busy, onSave, onOpen }: SavingProps) {
  const input = useRef<HTMLInputElement>(null);
  const [chosen, setChosen] = useState<File>();
  return (
    <>
      <div class="row">
        {learned.length > 0 && (
          <button type="button" class="plain" disabled={busy} onClick={onSave}>
            Save to a file
          </button>
        )}
        <button type="button" class="plain" disabled={busy} onClick={() => input.current?.click()}>
          Open a file
        </button>
        <input
          ref={input}
          type="file"
          accept=".zip,application/zip"
          hidden
          aria-label="Saved file"
          onChange={({ currentTarget }) => {
            const [file] = currentTarget.files ?? [];
            // The same file again is a change too.
            currentTarget.value = '';
            if (!file) return;
            if (learned.length > 0) setChosen(file);
            else onOpen(file);
          }}
        />
      </div>
      {chosen && (
        <Ask
          label="Replace what was learned here?"
          yes="Replace it"
          no="Leave it"
          onYes={() => {
            setChosen(undefined);
            onOpen(chosen);
          }}
          onNo={() => setChosen(undefined)}
        >
          Opening <b>{chosen.name}</b> replaces what was learned here: <b>{learned.join(', ')}</b>.
        </Ask>
      )}
    </>
  );
}
