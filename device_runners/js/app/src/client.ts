/** The worker's calls as promises. */

import type { Call, Calls, Request, Response, TaskProgress } from './protocol.js';

/** Something went wrong in the worker; the message is a sentence for the user. */
export class WorkerFault extends Error {
  constructor(
    message: string,
    /** Whether the user stopped it. */
    readonly stopped: boolean,
  ) {
    super(message);
  }
}

export class Client {
  onProgress: (progress: TaskProgress) => void = () => {};
  private readonly worker = new Worker(new URL('./worker/worker.ts', import.meta.url), { type: 'module' });
  private readonly waiting = new Map<
    number,
    { resolve: (value: never) => void; reject: (error: Error) => void }
  >();
  private last = 0;

  constructor() {
    this.worker.addEventListener('message', ({ data }: MessageEvent<Response>) => this.receive(data));
    this.worker.addEventListener('error', (event) => {
      event.preventDefault();
      const error = new WorkerFault(
        'The app stopped working. Reload the page; what was learned is kept.',
        false,
      );
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    });
  }

  call<C extends Call>(call: C, ...given: Parameters<Calls[C]>): Promise<ReturnType<Calls[C]>> {
    const id = ++this.last;
    const request: Request<C> = { id, call, given };
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage(request);
    });
  }

  private receive(response: Response): void {
    if ('progress' in response) {
      this.onProgress(response.progress);
      return;
    }
    const caller = this.waiting.get(response.id);
    this.waiting.delete(response.id);
    if ('error' in response) caller?.reject(new WorkerFault(response.error, response.stopped));
    else caller?.resolve(response.value as never);
  }
}
