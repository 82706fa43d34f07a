/** Trying it out: an image, and what the network takes it for. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { Filming } from '../camera/filming.js';
import type { Client } from '../client.js';
import type { Answer } from '../protocol.js';
import { reasonOf } from '../wording.js';
import { Guesses } from './guesses.js';
import { Picker, Thumbnail } from './pictures.js';

interface Seen {
  readonly picture: File;
  /** Undefined until the network has looked at it. */
  readonly answer?: Answer;
}

interface TryProps {
  readonly client: Client;
  /** Changes when the network does: the image is looked at again. */
  readonly learned: string;
  readonly onProblem: (text: string | undefined) => void;
}

export function Try({ client, learned, onProblem }: TryProps) {
  const [seen, setSeen] = useState<Seen>();
  // An answer that comes after a newer image is of no use.
  const turn = useRef(0);
  const look = async (picture: File) => {
    const mine = ++turn.current;
    onProblem(undefined);
    setSeen((before) => (before?.picture === picture ? before : { picture }));
    try {
      const answer = await client.call('predict', picture);
      if (mine === turn.current) setSeen({ picture, answer });
    } catch (error) {
      if (mine !== turn.current) return;
      setSeen(undefined);
      onProblem(reasonOf(error));
    }
  };
  useEffect(() => {
    if (seen) void look(seen.picture);
  }, [learned]);
  return (
    <section class="card" aria-labelledby="try">
      <h2 id="try">What is this?</h2>
      {seen && <Looked seen={seen} />}
      <Filming
        label="Take an image"
        describes="Take an image to recognise"
        byApp="Camera app: take an image to recognise"
        takes="Recognise it: take what the camera sees"
        shutter="Recognise it"
        main={!seen}
        onImage={(image) => void look(image)}
      >
        <Picker
          label="Choose one"
          describes="Choose one to recognise"
          onPick={([picture]) => void look(picture!)}
        />
      </Filming>
    </section>
  );
}

function Looked({ seen: { picture, answer } }: { seen: Seen }) {
  const taken = answer ? (answer.known && answer.guesses[0]?.label) || 'unknown' : 'not yet recognised';
  return (
    <div class="seen" aria-live="polite" aria-busy={!answer}>
      <Thumbnail file={picture} alt={`Your image: ${taken}`} />
      <div class="answer">
        {!answer && (
          <>
            <p class="hint">Looking …</p>
            <progress max="1" aria-label="Looking" />
          </>
        )}
        {answer && !answer.known && <p class="unknown">I don't know this. It looks most like:</p>}
        {answer && <Guesses guesses={answer.guesses} />}
      </div>
    </div>
  );
}
