/**
 * What JavaScript engines have beside ECMAScript, and what stands in where one has less: React Native's Hermes knows
 * neither text coders nor messages to itself, and an engine embedded in a device may know no timers either.
 */

interface Ports {
  readonly port1: { onmessage: (() => void) | null; close(): void };
  readonly port2: { postMessage(message: unknown): void };
}

/** What of Web Crypto is used. */
interface Subtle {
  digest?(algorithm: 'SHA-256', data: Uint8Array): Promise<ArrayBuffer>;
  importKey(
    format: 'raw' | 'pkcs8',
    key: Uint8Array,
    algorithm: 'Ed25519',
    extractable: boolean,
    usages: readonly string[],
  ): Promise<unknown>;
  exportKey(format: 'jwk', key: unknown): Promise<{ readonly x?: string }>;
  sign(algorithm: 'Ed25519', key: unknown, message: Uint8Array): Promise<ArrayBuffer>;
  verify(algorithm: 'Ed25519', key: unknown, signature: Uint8Array, message: Uint8Array): Promise<boolean>;
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
  readonly crypto?: { readonly subtle?: Subtle; getRandomValues?(bytes: Uint8Array): unknown };
  readonly WebAssembly?: {
    readonly Module: new (bytes: Uint8Array) => object;
    readonly Instance: new (module: object) => { readonly exports: object };
  };
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

/** sha256 by the engine's own code, which takes a tenth of the time; undefined where it has none, or not for these bytes. */
export async function ownSha256(bytes: Uint8Array): Promise<Uint8Array | undefined> {
  const subtle = globals.crypto?.subtle;
  try {
    const found = await subtle?.digest?.('SHA-256', bytes);
    return found && new Uint8Array(found);
  } catch {
    return undefined;
  }
}

/**
 * What checks signatures by the holder of an ed25519 public key, its 32 bytes. Nothing stands in for it where the engine has
 * none: undefined then.
 */
export async function ed25519(
  key: Uint8Array,
): Promise<((signature: Uint8Array, message: Uint8Array) => Promise<boolean>) | undefined> {
  const subtle = globals.crypto?.subtle;
  if (!subtle) return undefined;
  try {
    const held = await subtle.importKey('raw', key, 'Ed25519', false, ['verify']);
    return (signature, message) => subtle.verify('Ed25519', held, signature, message);
  } catch (error) {
    // An engine that knows keys, and this is none: nothing is signed by it.
    return isNoKey(error) ? async () => false : undefined;
  }
}

/** What signs with an ed25519 private key, and its public key, 32 bytes in base64 for addresses. */
export interface Signer {
  readonly publicKey: string;
  sign(message: Uint8Array): Promise<Uint8Array>;
}

/**
 * The holder of an ed25519 private key, PKCS #8; null where that is none, undefined where the engine cannot sign.
 */
export async function ed25519Signer(pkcs8: Uint8Array): Promise<Signer | null | undefined> {
  const subtle = globals.crypto?.subtle;
  if (!subtle) return undefined;
  try {
    const held = await subtle.importKey('pkcs8', pkcs8, 'Ed25519', true, ['sign']);
    const { x: publicKey } = await subtle.exportKey('jwk', held);
    if (publicKey === undefined) return undefined;
    const sign = async (message: Uint8Array): Promise<Uint8Array> =>
      new Uint8Array(await subtle.sign('Ed25519', held, message));
    return { publicKey, sign };
  } catch (error) {
    return isNoKey(error) ? null : undefined;
  }
}

function isNoKey(error: unknown): boolean {
  return (error as { name?: unknown } | undefined)?.name === 'DataError';
}

/**
 * What opens a module of WebAssembly that imports nothing, and gives what it exports; undefined where the engine has no WebAssembly, or none of the module's
 * kind, or is told to compile none (as by a page's Content-Security-Policy).
 */
export function compiled(module: Uint8Array): (() => object) | undefined {
  const { WebAssembly } = globals;
  try {
    if (!WebAssembly) return undefined;
    const made = new WebAssembly.Module(module);
    return () => new WebAssembly.Instance(made).exports;
  } catch {
    return undefined;
  }
}

/** Bytes that no other device draws. Nothing may depend on nobody guessing them: an engine may have its own numbers only. */
export function drawn(count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  if (globals.crypto?.getRandomValues) globals.crypto.getRandomValues(bytes);
  else for (let at = 0; at < count; at++) bytes[at] = Math.floor(256 * Math.random());
  return bytes;
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
