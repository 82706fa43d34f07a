/**
 * What JavaScript engines have beside ECMAScript, and what stands in where one has less: React Native's Hermes knows
 * neither text coders nor messages to itself, and an engine embedded in a device may know no timers either.
 */

interface Ports {
  readonly port1: { onmessage: (() => void) | null; close(): void };
  readonly port2: { postMessage(message: unknown): void };
}

/** What of these there is. Asked for at each use, since an application may bring what its engine lacks. */
interface Globals {
  readonly TextEncoder?: new () => { encode(text: string): Uint8Array };
  readonly TextDecoder?: new (
    label: string,
    options: { ignoreBOM: boolean },
  ) => { decode(bytes: Uint8Array): string };
  readonly performance?: { now(): number };
  readonly MessageChannel?: new () => Ports;
  readonly setTimeout?: (run: () => void) => unknown;
}

const globals = globalThis as Globals;
const REPLACEMENT = 0xfffd;
/** Arguments of one call: engines bound them. */
const AT_ONCE = 4096;

/** Milliseconds that only ever grow, from any beginning. */
export function now(): number {
  return globals.performance ? globals.performance.now() : Date.now();
}

/**
 * Run later, behind messages that have come meanwhile. A message to itself is not delayed, as browsers delay nested
 * timers. Without either there is no event loop to let run.
 */
export function afterMessages(resume: () => void): void {
  const { MessageChannel, setTimeout } = globals;
  if (MessageChannel) {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      // Open ports would keep Node running.
      port1.close();
      resume();
    };
    port2.postMessage(undefined);
  } else if (setTimeout) {
    setTimeout(resume);
  } else {
    void Promise.resolve().then(resume);
  }
}

/** A text in UTF-8; a surrogate without its other half becomes a replacement character (WHATWG Encoding). */
export function encoded(text: string): Uint8Array {
  return globals.TextEncoder ? new globals.TextEncoder().encode(text) : plainlyEncoded(text);
}

/** UTF-8 as text; malformed bytes become replacement characters, and a byte order mark stays (WHATWG Encoding). */
export function decoded(bytes: Uint8Array): string {
  return globals.TextDecoder
    ? new globals.TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
    : plainlyDecoded(bytes);
}

/** `encoded`, in plain ECMAScript. */
export function plainlyEncoded(text: string): Uint8Array {
  // A code unit takes three bytes at most, and a pair of them four.
  const bytes = new Uint8Array(3 * text.length);
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    let point = text.codePointAt(i)!;
    if (point > 0xffff) i++;
    else if (point >= 0xd800 && point <= 0xdfff) point = REPLACEMENT;
    if (point < 0x80) {
      bytes[length++] = point;
      continue;
    }
    const more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    bytes[length++] = [0, 0xc0, 0xe0, 0xf0][more]! | (point >> (6 * more));
    for (let left = more - 1; left >= 0; left--) bytes[length++] = 0x80 | ((point >> (6 * left)) & 0x3f);
  }
  return bytes.slice(0, length);
}

/** `decoded`, in plain ECMAScript: of a malformed sequence, its longest beginning that could be one is replaced. */
export function plainlyDecoded(bytes: Uint8Array): string {
  let text = '';
  let points: number[] = [];
  for (let i = 0; i < bytes.length; ) {
    const { point, next } = pointAt(bytes, i);
    points.push(point);
    i = next;
    if (points.length === AT_ONCE || i >= bytes.length) {
      text += String.fromCodePoint(...points);
      points = [];
    }
  }
  return text;
}

function pointAt(bytes: Uint8Array, start: number): { point: number; next: number } {
  const lead = bytes[start]!;
  if (lead < 0x80) return { point: lead, next: start + 1 };
  const more = lead >= 0xc2 && lead <= 0xdf ? 1 : lead >= 0xe0 && lead <= 0xef ? 2 : 3;
  if (lead < 0xc2 || lead > 0xf4) return { point: REPLACEMENT, next: start + 1 };
  // Neither longer than need be, nor half a surrogate pair, nor beyond the last code point.
  let least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  let most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  let point = lead & (0x3f >> more);
  for (let i = 1; i <= more; i++) {
    const byte = bytes[start + i];
    if (byte === undefined || byte < least || byte > most) return { point: REPLACEMENT, next: start + i };
    point = (point << 6) | (byte & 0x3f);
    [least, most] = [0x80, 0xbf];
  }
  return { point, next: start + more + 1 };
}
