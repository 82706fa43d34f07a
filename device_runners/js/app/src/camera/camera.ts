/** The phone's camera as a stream, one at a time, and its frames as images. */

import { type Grey, JUDGED } from './frames.js';

// The shorter side of an image that is kept, pixels: more than any network here takes.
const KEPT = 480;
const QUALITY = 0.92;
const WANTED: MediaStreamConstraints = {
  audio: false,
  video: { facingMode: 'environment', width: { ideal: 1280 }, height: { ideal: 960 } },
};

/** Whether pages may ask for a camera here at all: browsers have none for pages without HTTPS. */
export function canFilm(): boolean {
  return typeof navigator.mediaDevices?.getUserMedia === 'function';
}

// Phones give one camera to one stream: who opens it next closes it here.
let last: { close: () => void } | undefined;

export class Camera {
  private images = 0;

  private constructor(
    private readonly stream: MediaStream,
    private readonly onClosed: () => void,
  ) {
    // Another app took it, it was unplugged, or the permission was taken back.
    for (const track of stream.getTracks()) track.addEventListener('ended', this.close);
    document.addEventListener('visibilitychange', this.hidden);
  }

  /** Throws an Error whose message is a sentence for the user. `onClosed` is called once, however it is closed. */
  static async open(onClosed: () => void): Promise<Camera> {
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia(WANTED);
    } catch (error) {
      throw new Error(reason(error));
    }
    last?.close();
    const camera = new Camera(stream, onClosed);
    last = camera;
    return camera;
  }

  show(video: HTMLVideoElement): void {
    video.srcObject = this.stream;
    // Where the browser wants a tap first, the view starts with the next one.
    void video.play().catch(() => {});
  }

  /** What the view shows now, small and grey; undefined as long as it shows nothing. */
  grey(video: HTMLVideoElement): Grey | undefined {
    const canvas = drawn(video, JUDGED);
    if (!canvas) return undefined;
    const { width, height } = canvas;
    const { data } = canvas.getContext('2d')!.getImageData(0, 0, width, height);
    const values = new Float32Array(width * height);
    for (let at = 0; at < values.length; at++) {
      values[at] = 0.299 * data[4 * at]! + 0.587 * data[4 * at + 1]! + 0.114 * data[4 * at + 2]!;
    }
    return { width, height, values };
  }

  /** What the view shows now as an image of its own; undefined where that cannot be had. */
  async image(video: HTMLVideoElement): Promise<File | undefined> {
    const canvas = drawn(video, KEPT);
    if (!canvas) return undefined;
    const blob = await new Promise<Blob | null>((made) => canvas.toBlob(made, 'image/jpeg', QUALITY));
    return blob ? new File([blob], `camera-${++this.images}.jpg`, { type: blob.type }) : undefined;
  }

  readonly close = (): void => {
    if (last === this) last = undefined;
    document.removeEventListener('visibilitychange', this.hidden);
    const tracks = this.stream.getTracks().filter(({ readyState }) => readyState === 'live');
    for (const track of this.stream.getTracks()) track.removeEventListener('ended', this.close);
    for (const track of tracks) track.stop();
    this.onClosed();
  };

  // A page that is not seen must not film.
  private readonly hidden = (): void => {
    if (document.hidden) this.close();
  };
}

function drawn(video: HTMLVideoElement, shorter: number): HTMLCanvasElement | undefined {
  const { videoWidth, videoHeight } = video;
  if (!videoWidth || !videoHeight || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return undefined;
  const scale = Math.min(1, shorter / Math.min(videoWidth, videoHeight));
  const canvas = document.createElement('canvas');
  canvas.width = Math.round(scale * videoWidth);
  canvas.height = Math.round(scale * videoHeight);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (!context) return undefined;
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function reason(error: unknown): string {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') {
    return 'The camera was not allowed: allow it for this page in the browser, or take images with the camera app.';
  }
  if (name === 'NotFoundError' || name === 'OverconstrainedError') {
    return 'No camera was found: take images with the camera app, or choose some.';
  }
  return 'The camera cannot be used now: close other apps that use it, or take images with the camera app.';
}
