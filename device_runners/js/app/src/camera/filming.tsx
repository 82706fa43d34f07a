/** A button for the camera: live where a page may film, and the camera app where it may not. */

import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { Picker } from '../parts/pictures.js';
import { canFilm } from './camera.js';
import { Live } from './live.js';

interface FilmingProps {
  readonly label: string;
  /** What is said to a screen reader of the button that opens the camera, or the camera app, and of the one that takes an image. */
  readonly describes: string;
  readonly byApp: string;
  readonly takes: string;
  /** What the button that takes an image shows. */
  readonly shutter: string;
  readonly main?: boolean;
  readonly bursts?: boolean;
  readonly onImage: (image: File) => void;
  /** Other ways to an image, in the same row. */
  readonly children: ComponentChildren;
}

export function Filming(props: FilmingProps) {
  const { label, describes, byApp, takes, shutter, main = false, bursts = false, onImage, children } = props;
  const [open, setOpen] = useState(false);
  const [problem, setProblem] = useState<string>();
  const noView = problem !== undefined || !canFilm();
  return (
    <>
      {open && (
        <Live
          describes={takes}
          label={shutter}
          bursts={bursts}
          onImage={onImage}
          onClose={(why) => {
            setOpen(false);
            setProblem(why);
          }}
        />
      )}
      {problem && (
        <p class="remark" role="status">
          {problem}
        </p>
      )}
      <div class="row">
        {noView ? (
          <>
            <Picker
              label={problem ? 'Camera app' : label}
              camera
              main={main}
              describes={problem ? byApp : describes}
              onPick={(files) => files.forEach(onImage)}
            />
            {canFilm() && (
              <button
                type="button"
                class="plain"
                onClick={() => {
                  setProblem(undefined);
                  setOpen(true);
                }}
              >
                Try again
              </button>
            )}
          </>
        ) : (
          !open && (
            <button
              type="button"
              class={main ? 'main' : 'plain'}
              aria-label={describes}
              onClick={() => setOpen(true)}
            >
              {label}
            </button>
          )
        )}
        {children}
      </div>
    </>
  );
}
