/** Teaching: classes, new or known, each with a name and some images. */

import { useState } from 'preact/hooks';
import { Filming } from '../camera/filming.js';
import type { Known, NewClass } from '../protocol.js';
import { folded, namesIn } from './names.js';
import { Picker, Thumbnail } from './pictures.js';

const FEWEST = 5;
const CARDS = 2;
const SHOWN = 12;

interface Draft {
  readonly key: number;
  readonly name: string;
  readonly pictures: readonly File[];
}

let keys = 0;
const empty = (): Draft => ({ key: ++keys, name: '', pictures: [] });

export function Teach({ known, onTeach }: { known: Known; onTeach: (classes: NewClass[]) => void }) {
  const [drafts, setDrafts] = useState<readonly Draft[]>(() => [empty(), empty()]);
  // By what a person would take for the same, the name that is known.
  const there = new Map(namesIn(known).map((name) => [folded(name), name]));
  // From what a draft is then: images of a burst come while others are still drawn.
  const change = (key: number, to: (draft: Draft) => Partial<Draft>) =>
    setDrafts((all) => all.map((draft) => (draft.key === key ? { ...draft, ...to(draft) } : draft)));
  const named = (draft: Draft): string => there.get(folded(draft.name)) ?? draft.name.trim();
  // A card that was left alone is no class.
  const used = drafts.filter(({ name, pictures }) => name.trim() || pictures.length);
  const missing = whatIsMissing(used);
  return (
    <section class="card" aria-labelledby="teach">
      <h2 id="teach">Teach something new</h2>
      <p class="hint">
        One class or more, each with {FEWEST} images at least; twenty are better. Every fifth is kept back for
        a test.
      </p>
      {drafts.map((draft, index) => (
        <DraftCard
          key={draft.key}
          draft={draft}
          number={index + 1}
          problem={nameProblem(draft, drafts)}
          known={there.get(folded(draft.name))}
          onChange={(to) => change(draft.key, to)}
          {...(drafts.length > CARDS
            ? { onRemove: () => setDrafts((all) => all.filter(({ key }) => key !== draft.key)) }
            : {})}
        />
      ))}
      <div class="row">
        <button type="button" class="plain" onClick={() => setDrafts((all) => [...all, empty()])}>
          Add a class
        </button>
        <button
          type="button"
          class="main"
          disabled={missing !== undefined}
          aria-describedby="missing"
          onClick={() => onTeach(used.map((draft) => ({ name: named(draft), pictures: draft.pictures })))}
        >
          {used.length === 1 ? 'Learn it' : 'Learn them'}
        </button>
      </div>
      <p id="missing" class="hint" aria-live="polite">
        {missing ?? ''}
      </p>
    </section>
  );
}

interface DraftProps {
  readonly draft: Draft;
  readonly number: number;
  readonly problem: string | undefined;
  /** The class of this name that is known. */
  readonly known: string | undefined;
  readonly onChange: (to: (draft: Draft) => Partial<Draft>) => void;
  readonly onRemove?: () => void;
}

function DraftCard({ draft, number, problem, known, onChange, onRemove }: DraftProps) {
  const { key, name, pictures } = draft;
  const called = name.trim() || `class ${number}`;
  const add = (files: File[]) => onChange((then) => ({ pictures: [...then.pictures, ...files] }));
  return (
    <fieldset class="draft">
      <legend class="unseen">Class {number}</legend>
      <div class="name-row">
        <label for={`name-${key}`}>Name</label>
        <input
          id={`name-${key}`}
          type="text"
          autocomplete="off"
          autocapitalize="none"
          maxLength={60}
          placeholder={number === 1 ? 'owl' : number === 2 ? 'crow' : 'another bird'}
          value={name}
          aria-invalid={problem !== undefined}
          aria-describedby={`problem-${key}`}
          onInput={({ currentTarget: { value } }) => onChange(() => ({ name: value }))}
        />
        {onRemove && (
          <button type="button" class="quiet" aria-label={`Remove ${called}`} onClick={onRemove}>
            Remove
          </button>
        )}
      </div>
      <p id={`problem-${key}`} class={problem ? 'wrong' : 'hint'}>
        {problem ?? (known ? `${known} is known already: these images add to it.` : '')}
      </p>
      <Filming
        label="Camera"
        describes={`Camera: take an image of ${called}`}
        byApp={`Camera app: take an image of ${called}`}
        takes={`Hold to take images of ${called}`}
        shutter="Hold to take images"
        bursts
        onImage={(image) => add([image])}
      >
        <Picker label="Images" multiple describes={`Images of ${called}`} onPick={add} />
        <span class="count" aria-live="polite">
          {pictures.length} {pictures.length === 1 ? 'image' : 'images'}
        </span>
      </Filming>
      {/* Below the camera, so that nothing moves under the finger that holds its button. */}
      {pictures.length > 0 && (
        <div class="strip">
          {pictures.slice(0, SHOWN).map((file, index) => (
            <button
              key={`${file.name} ${index}`}
              type="button"
              class="picture"
              aria-label={`Remove image ${index + 1} of ${called}`}
              onClick={() =>
                onChange((then) => ({ pictures: then.pictures.filter((other) => other !== file) }))
              }
            >
              <Thumbnail file={file} alt="" />
            </button>
          ))}
          {pictures.length > SHOWN && <span class="more">+ {pictures.length - SHOWN}</span>}
        </div>
      )}
    </fieldset>
  );
}

function nameProblem(draft: Draft, drafts: readonly Draft[]): string | undefined {
  const name = folded(draft.name);
  if (!name) return undefined;
  const twice = drafts.some((other) => other.key !== draft.key && folded(other.name) === name);
  return twice ? 'Two classes have this name: choose another.' : undefined;
}

/** Why it cannot be learned yet. */
function whatIsMissing(drafts: readonly Draft[]): string | undefined {
  if (drafts.some((draft) => nameProblem(draft, drafts))) return 'Each class needs a name of its own.';
  if (!drafts.length || drafts.some(({ name }) => !name.trim())) return 'Give each class a name.';
  const few = drafts.find(({ pictures }) => pictures.length < FEWEST);
  if (!few) return undefined;
  const wanted = FEWEST - few.pictures.length;
  return `${few.name.trim()} needs ${wanted} more ${wanted === 1 ? 'image' : 'images'}.`;
}
