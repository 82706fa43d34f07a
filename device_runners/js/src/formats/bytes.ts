/** sha256 and text of bytes. */

import { sha256 as digest } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';
import { decoded, encoded, ownSha256 } from '../engine.js';

/** sha256 of bytes, or of a text in UTF-8: hexadecimal. In plain JavaScript, since React Native has no Web Crypto. */
export function sha256(content: Uint8Array | string): string {
  return bytesToHex(digest(typeof content === 'string' ? encoded(content) : content));
}

/** The same of many bytes, by the engine where it can. */
export async function sha256OfMany(content: Uint8Array): Promise<string> {
  return bytesToHex((await ownSha256(content)) ?? digest(content));
}

/** A sha256 over pieces. */
export class Sha256 {
  readonly #state = digest.create();

  update(content: Uint8Array | string): this {
    this.#state.update(typeof content === 'string' ? encoded(content) : content);
    return this;
  }

  hex(): string {
    return bytesToHex(this.#state.digest());
  }
}

/** Bytes as hexadecimal digits. */
export function hexOf(bytes: Uint8Array): string {
  return bytesToHex(bytes);
}

/** A text in UTF-8. */
export function utf8(text: string): Uint8Array {
  return encoded(text);
}

/** UTF-8 as text; malformed bytes become replacement characters. */
export function textOf(bytes: Uint8Array): string {
  return decoded(bytes);
}

/** Pieces, one behind the other. */
export function concatenate(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let position = 0;
  for (const piece of pieces) {
    whole.set(piece, position);
    position += piece.length;
  }
  return whole;
}
