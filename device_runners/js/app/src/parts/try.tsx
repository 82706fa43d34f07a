/** Trying it out: an image, and what the network takes it for. */

import { useEffect, useState } from 'preact/hooks';
import type { Client } from '../client.js';
import type { Answer } from '../protocol.js';
import { Guesses } from './guesses.js';
import { Picker, Thumbnail } from './pictures.js';

interface Seen extends Answer {
  readonly picture: File;
}

interface TryProps {
  readonly client: Client;
  /** Changes when the network does: the image is looked at again. */
  readonly learned: string;
  readonly onProblem: (text: string | undefined) => void;
}

export function Try({ client, learned, onProblem }: TryProps) {
  const [seen, setSeen] = useState<Seen>();
  const look = async ([picture]: File[]) => {
    onProblem(undefined);
    try {
      setSeen({ picture: picture!, ...(await client.call('predict', picture!)) });
    } catch (error) {
      setSeen(undefined);
      onProblem(error instanceof Error ? error.message : String(error));
    }
  };
  useEffect(() => {
    if (seen) void look([seen.picture]);
  }, [learned]);
  return (
    <section class="card" aria-labelledby="try">
      <h2 id="try">What is this?</h2>
      {seen && (
        <div class="seen" aria-live="polite">
          <Thumbnail
            file={seen.picture}
            alt={`Your image: ${(seen.known && seen.guesses[0]?.label) || 'unknown'}`}
          />
          <div class="answer">
            {!seen.known && <p class="unknown">I don't know this. It looks most like:</p>}
            <Guesses guesses={seen.guesses} />
          </div>
        </div>
      )}
      <div class="row">
        <Picker
          label="Take an image"
          camera
          main={!seen}
          describes="Take an image to recognise"
          onPick={look}
        />
        <Picker label="Choose one" describes="Choose one to recognise" onPick={look} />
      </div>
    </section>
  );
}
