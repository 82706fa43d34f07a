/** sha256 and text of bytes. */

import { sha256 as digest } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';
import { decoded, encoded } from '../engine.js';

/** sha256 of bytes, or of a text in UTF-8: hexadecimal. In plain JavaScript, since React Native has no Web Crypto. */
export function sha256(content: Uint8Array | string): string {
  return bytesToHex(digest(typeof content === 'string' ? encoded(content) : content));
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

/** A text in UTF-8. */
export function utf8(text: string): Uint8Array {
  return encoded(text);
}

/** UTF-8 as text; malformed bytes become replacement characters. */
export function textOf(bytes: Uint8Array): string {
  return decoded(bytes);
}

/** Pieces, one behind the other. */
export function concatenate(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let position = 0;
  for (const piece of pieces) {
    whole.set(piece, position);
    position += piece.length;
  }
  return whole;
}

const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** The bytes of a text in base64 (RFC 4648), padded and without anything else; undefined for another one. */
export function bytesOfBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (text.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  const digits = text.replace(/=+$/, '');
  const bytes = new Uint8Array(Math.floor((digits.length * 3) / 4));
  let [bits, known, length] = [0, 0, 0];
  for (const digit of digits) {
    bits = ((bits << 6) | BASE64.indexOf(digit)) & 0xffff;
    known += 6;
    if (known >= 8) {
      known -= 8;
      bytes[length++] = (bits >> known) & 0xff;
    }
  }
  return bytes;
}
