/** What this device knows, and taking it elsewhere. */

import { useState } from 'preact/hooks';
import type { FromFleet, Known } from '../protocol.js';
import { Ask } from './ask.js';
import { Fleet } from './fleet.js';
import { LearnedClass } from './learned.js';
import { namesIn } from './names.js';
import { Saving } from './saving.js';

interface KnowledgeProps {
  readonly known: Known;
  /** Why the app itself is not kept on this device. */
  readonly notKept: string | undefined;
  readonly busy: boolean;
  /** Whether one of these buttons was pressed, and is not done yet. */
  readonly working: boolean;
  readonly onExport: () => void;
  readonly onUndo: () => void;
  readonly onForget: (name: string) => void;
  readonly onRename: (old: string, name: string) => void;
  readonly onSave: () => void;
  readonly onOpen: (file: File) => void;
  /** What was taken over from the fleet just now, and what stays here of what was saved for it. */
  readonly fromFleet: FromFleet | undefined;
  readonly leftOut: readonly string[];
  readonly onSaveForFleet: (name: string) => void;
  readonly onApplyFleet: (file: File) => void;
}

export function Knowledge(props: KnowledgeProps) {
  const { known, notKept, busy, working, onExport, onUndo, onForget, onRename, onSave, onOpen } = props;
  const [asking, setAsking] = useState(false);
  const [chosen, setChosen] = useState<string>();
  const last = known.tasks.at(-1);
  const here = new Set(known.tasks.filter(({ fleet }) => !fleet).flatMap(({ classes }) => classes));
  const learned = namesIn(known).filter((name) => !known.base.includes(name));
  return (
    <section class="card" aria-labelledby="knowledge">
      <h2 id="knowledge">What it knows</h2>
      <ul class="chips" aria-label="Classes">
        {known.base.map((name) => (
          <li key={name}>{name}</li>
        ))}
        {learned.map((name) => (
          <li key={name} class="new">
            <button
              type="button"
              disabled={busy}
              aria-expanded={name === chosen}
              onClick={() => setChosen(name === chosen ? undefined : name)}
            >
              {name}
              <span class="unseen">{here.has(name) ? ' (learned here)' : ' (from the fleet)'}</span>
            </button>
          </li>
        ))}
      </ul>
      {chosen !== undefined && learned.includes(chosen) && (
        <LearnedClass
          key={chosen}
          name={chosen}
          others={namesIn(known)}
          busy={busy}
          onForget={() => onForget(chosen)}
          onRename={(name) => {
            setChosen(undefined);
            onRename(chosen, name);
          }}
        />
      )}
      {last && !known.persistent && (
        <p class="hint">
          The browser may clear this when it needs room. Add the app to the home screen, or save it as a file,
          to keep it.
        </p>
      )}
      {notKept && <p class="hint">{notKept}</p>}
      <Saving
        learned={[...new Set(known.tasks.flatMap(({ classes }) => classes))]}
        busy={busy}
        onSave={onSave}
        onOpen={onOpen}
      />
      <div class="row">
        <button type="button" class="plain" disabled={busy} onClick={onExport}>
          Export the model
        </button>
        {last && !asking && (
          <button type="button" class="quiet" disabled={busy} onClick={() => setAsking(true)}>
            {last.fleet ? 'Forget what came from the fleet' : 'Forget the last task'}
          </button>
        )}
      </div>
      {working && (
        <div class="working">
          <p class="hint" role="status">
            A moment …
          </p>
          <progress max="1" aria-label="Working" />
        </div>
      )}
      {last && asking && (
        <Ask
          label={last.fleet ? 'Forget what came from the fleet?' : 'Forget the last task?'}
          yes="Forget it"
          no="Keep it"
          onYes={() => {
            setAsking(false);
            onUndo();
          }}
          onNo={() => setAsking(false)}
        >
          {last.fleet ? (
            'Forget what came from the fleet? What was learned here stays, and the file can be taken over again.'
          ) : (
            <>
              Forget <b>{last.classes.join(', ')}</b>? The images are not kept, so it cannot be learned again
              without them.
            </>
          )}
        </Ask>
      )}
      <Fleet
        learned={here.size > 0}
        busy={busy}
        told={props.fromFleet}
        leftOut={props.leftOut}
        onSave={props.onSaveForFleet}
        onApply={props.onApplyFleet}
      />
    </section>
  );
}
