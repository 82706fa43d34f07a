/** The live view: a tap takes one image, holding the button many, of which blurred and equal ones are dropped. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { Camera } from './camera.js';
import { FrameFilter, type Verdict } from './frames.js';

// Between two frames that are looked at, ms.
const EVERY = 125;

const SAID: { [verdict in Verdict]: string } = {
  kept: 'Taking images: move around it.',
  blurred: 'Too blurred: hold still, or come closer.',
  same: 'It looks the same: move a little.',
};

const said = (verdict: Verdict | undefined): string =>
  verdict ? SAID[verdict] : 'Hold the button for many images, tap it for one.';

interface LiveProps {
  /** What the button says to a screen reader, and what it shows. */
  readonly describes: string;
  readonly label: string;
  /** Whether holding the button takes more than one image. */
  readonly bursts?: boolean;
  readonly onImage: (image: File) => void;
  /** Closed, with a sentence where there was no camera. */
  readonly onClose: (problem?: string) => void;
}

export function Live({ describes, label, bursts = false, onImage, onClose }: LiveProps) {
  const video = useRef<HTMLVideoElement>(null);
  const camera = useRef<Camera>();
  const burst = useRef<{ taken: number }>();
  // Whether a finger or a key was on the button: the click behind it is no wish of its own.
  const pressed = useRef(false);
  const filter = useRef(new FrameFilter());
  const [verdict, setVerdict] = useState<Verdict>();
  const [ready, setReady] = useState(false);
  const latest = useRef({ onImage, onClose });
  latest.current = { onImage, onClose };

  const take = async (): Promise<void> => {
    const image = await camera.current?.image(video.current!);
    if (image) latest.current.onImage(image);
  };
  const look = (): void => {
    const frame = camera.current?.grey(video.current!);
    if (!frame) return;
    const filming = burst.current;
    const found = filter.current.judge(frame, filming !== undefined);
    if (!filming) return;
    setVerdict(found);
    if (found !== 'kept') return;
    filming.taken++;
    void take();
  };
  const start = (): void => {
    if (burst.current) return;
    burst.current = { taken: 0 };
    pressed.current = true;
    if (bursts) look();
  };
  const stop = (): void => {
    const ended = burst.current;
    burst.current = undefined;
    setVerdict(undefined);
    // A tap is a wish for this very image.
    if (ended?.taken === 0) single();
  };
  const single = (): void => {
    const frame = camera.current?.grey(video.current!);
    if (frame) filter.current.keep(frame);
    void take();
  };

  useEffect(() => {
    let gone = false;
    const closed = () => {
      if (!gone) latest.current.onClose();
      gone = true;
    };
    Camera.open(closed).then(
      (opened) => {
        // It was closed while the person was asked.
        if (gone || !video.current) return opened.close();
        camera.current = opened;
        opened.show(video.current);
      },
      (error: Error) => {
        if (!gone) latest.current.onClose(error.message);
      },
    );
    const timer = bursts ? setInterval(look, EVERY) : undefined;
    return () => {
      gone = true;
      clearInterval(timer);
      camera.current?.close();
    };
  }, []);

  const isKey = ({ key }: KeyboardEvent): boolean => key === ' ' || key === 'Enter';
  return (
    <div class="live">
      <video
        ref={video}
        muted
        playsInline
        aria-label="What the camera sees"
        onLoadedData={() => setReady(true)}
      />
      {bursts && (
        <p class="hint" role="status">
          {ready ? said(verdict) : 'The camera opens …'}
        </p>
      )}
      <div class="row">
        <button
          type="button"
          class="main shutter"
          aria-label={describes}
          disabled={!ready}
          onPointerDown={(event) => {
            if (event.button !== 0) return;
            event.currentTarget.setPointerCapture(event.pointerId);
            start();
          }}
          onPointerUp={stop}
          onLostPointerCapture={stop}
          onContextMenu={(event) => event.preventDefault()}
          onKeyDown={(event) => {
            if (!isKey(event)) return;
            event.preventDefault();
            if (!event.repeat) start();
          }}
          onKeyUp={(event) => {
            if (!isKey(event)) return;
            event.preventDefault();
            stop();
          }}
          onBlur={stop}
          // Of a screen reader, which neither presses nor holds.
          onClick={() => {
            if (!pressed.current) single();
            pressed.current = false;
          }}
        >
          {label}
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => (camera.current ? camera.current.close() : onClose())}
        >
          Close the camera
        </button>
      </div>
    </div>
  );
}
