/** One class that was learned here: another name for it, or to forget it. */

import { useState } from 'preact/hooks';
import { Ask } from './ask.js';
import { folded } from './names.js';

interface LearnedProps {
  readonly name: string;
  /** All classes that are known. */
  readonly others: readonly string[];
  readonly busy: boolean;
  readonly onForget: () => void;
  readonly onRename: (name: string) => void;
}

export function LearnedClass({ name, others, busy, onForget, onRename }: LearnedProps) {
  const [text, setText] = useState(name);
  const [asking, setAsking] = useState(false);
  const wanted = text.trim();
  const taken = others.some((other) => other !== name && folded(other) === folded(wanted));
  return (
    <form
      class="draft"
      aria-label={name}
      onSubmit={(event) => {
        event.preventDefault();
        onRename(wanted);
      }}
    >
      <div class="name-row">
        <label for="new-name">New name</label>
        <input
          id="new-name"
          type="text"
          autocomplete="off"
          autocapitalize="none"
          maxLength={60}
          value={text}
          aria-invalid={taken}
          aria-describedby="new-name-problem"
          onInput={({ currentTarget }) => setText(currentTarget.value)}
        />
      </div>
      <p id="new-name-problem" class="wrong">
        {taken ? `${wanted} is known already: choose another name.` : ''}
      </p>
      <div class="row">
        <button type="submit" class="plain" disabled={busy || taken || !wanted || wanted === name}>
          Rename
        </button>
        {!asking && (
          <button type="button" class="quiet" disabled={busy} onClick={() => setAsking(true)}>
            Forget {name}
          </button>
        )}
      </div>
      {asking && (
        <Ask
          label={`Forget ${name}?`}
          yes="Forget it"
          no="Keep it"
          onYes={onForget}
          onNo={() => setAsking(false)}
        >
          Forget <b>{name}</b> for good? It cannot be undone.
        </Ask>
      )}
    </form>
  );
}
