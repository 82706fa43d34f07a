/**
 * Signed bundles: an ed25519 signature over the manifest, which holds the sha256 of every other file.
 *
 * Checked by the engine's Web Crypto. Where it has no Ed25519, nothing is taken for checked: opening is refused.
 */

import { ed25519, ed25519Signer, type Signer } from '../engine.js';
import { BundleError, ConfigError } from '../errors.js';
import { concatenate, hexOf, sha256, utf8 } from '../formats/bytes.js';
import type { BundleSource } from './source.js';

export const SIGNATURE = 'manifest.sig';
// Signed with the manifest, so that a signature made for something else is none for a bundle. Python's: bundle/signing.py.
const PURPOSE = utf8('csk-sdk bundle manifest, signature scheme 1\n');
export const SIGNATURE_BYTES = 64;
// What stands in front of the key's 32 bytes (RFC 8410).
const ED25519 = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const KEY_BYTES = 32;
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const EXTRACT =
  'make it with `openssl pkey -in key.pem -pubout -out trust.pem`, and give the text of trust.pem.';
const MAKE_ONE =
  'make one with `openssl genpkey -algorithm ed25519 -out key.pem`, and give the text of key.pem.';
const PRIVATE = /-----BEGIN (ENCRYPTED )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END/;
// Which kind of key it is, behind its version (RFC 8410).
const KIND = [0x06, 0x03, 0x2b, 0x65, 0x70];
const KIND_AT = 7;
const PEM = /-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----/;

/** Whose bundles are opened. */
export class TrustedKey {
  private constructor(
    /** The 32 bytes of the public key. */
    private readonly raw: Uint8Array,
    /** sha256 of these, hexadecimal, as `accepted.json` names the key. */
    readonly fingerprint: string,
  ) {}

  /** The key in the text of a PEM file, as OpenSSL writes it. Throws ConfigError where it is no ed25519 public key. */
  static of(pem: unknown): TrustedKey {
    if (typeof pem !== 'string')
      throw new ConfigError(`trust is no text, and must be a public key: ${EXTRACT}`);
    const found = PEM.exec(pem)?.[1];
    const der = found === undefined ? undefined : bytesOfBase64(found.replace(/\s/g, ''));
    if (!der) throw new ConfigError(`trust is not a public key in PEM form: ${EXTRACT}`);
    if (der.length !== ED25519.length + KEY_BYTES || ED25519.some((byte, i) => der[i] !== byte))
      throw new ConfigError(`trust is not an ed25519 key: ${EXTRACT}`);
    const raw = der.slice(ED25519.length);
    return new TrustedKey(raw, sha256(raw));
  }

  /** The public key, hexadecimal. */
  get hex(): string {
    return hexOf(this.raw);
  }

  /** What messages call it. */
  get name(): string {
    return `the key of the option trust (${this.fingerprint.slice(0, 8)}…)`;
  }

  /**
   * Throws BundleError unless `source` holds the signature of `manifest` by the holder of the key, ConfigError where this
   * engine cannot tell.
   */
  async check(source: BundleSource, manifest: Uint8Array, signature: Uint8Array | undefined): Promise<void> {
    if (!signature) {
      throw new BundleError(
        `The bundle in ${source.name} is not signed, and this device trusts only bundles signed by ${this.name}. ` +
          'Build it with `csk-sdk build-artifacts --sign KEY`.',
      );
    }
    const verify = await ed25519(this.raw);
    if (!verify) throw unable();
    const message = concatenate([PURPOSE, manifest]);
    if (signature.length !== SIGNATURE_BYTES || !(await verify(signature.slice(), message))) {
      throw new BundleError(
        `The bundle in ${source.name} is not signed by ${this.name}: the signature does not match. ` +
          'Do not use it; get the bundle again from whoever built it.',
      );
    }
  }
}

/** What was said, and by whom: public key and signature, hexadecimal. */
export interface Signed {
  readonly key: string;
  readonly signature: string;
}

/** Who signs for one device or operator: the holder of an ed25519 private key. */
export class SigningKey {
  private constructor(
    private readonly signer: Signer,
    /** The public key, hexadecimal. */
    readonly hex: string,
  ) {}

  /**
   * The key in the text of a PEM file, as OpenSSL writes it. Throws ConfigError where it is no ed25519 private key, has a
   * password, or where this engine cannot sign.
   */
  static async of(pem: unknown): Promise<SigningKey> {
    if (typeof pem !== 'string')
      throw new ConfigError(`sign is no text, and must be a private key: ${MAKE_ONE}`);
    const [, password, text] = PRIVATE.exec(pem) ?? [];
    if (password) throw new ConfigError('The key in sign has a password: give one without.');
    const der = text === undefined ? undefined : bytesOfBase64(text.replace(/\s/g, ''));
    if (!der) throw new ConfigError(`sign is not a private key in PEM form: ${MAKE_ONE}`);
    const signer = KIND.some((byte, i) => der[KIND_AT + i] !== byte) ? null : await ed25519Signer(der);
    if (signer === null) throw new ConfigError(`sign is not an ed25519 key: ${MAKE_ONE}`);
    if (!signer) throw unable('Nothing can be signed here');
    const letters = signer.publicKey.replaceAll('-', '+').replaceAll('_', '/');
    return new SigningKey(signer, hexOf(bytesOfBase64(letters.padEnd(44, '='))!));
  }

  /** `text`, signed for this purpose and for no other. */
  async sign(purpose: string, text: string): Promise<Signed> {
    return { key: this.hex, signature: hexOf(await this.signer.sign(signedFor(purpose, text))) };
  }
}

/** Whether that is the signature of `text`, for this purpose. Throws ConfigError where this engine cannot tell. */
export async function isSignature(
  purpose: string,
  text: string,
  { key, signature }: Signed,
): Promise<boolean> {
  const [raw, said] = [bytesOfHex(key), bytesOfHex(signature)];
  if (raw?.length !== KEY_BYTES || said?.length !== SIGNATURE_BYTES) return false;
  const verify = await ed25519(raw);
  if (!verify) throw unable('It is signed, and that cannot be checked here');
  return verify(said, signedFor(purpose, text));
}

function signedFor(purpose: string, text: string): Uint8Array {
  return utf8(`csk-sdk ${purpose}, signature scheme 1\n${text}`);
}

function bytesOfHex(text: string): Uint8Array | undefined {
  if (!/^([0-9a-f]{2})*$/.test(text)) return undefined;
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

function unable(what?: string): ConfigError {
  const engine =
    'this JavaScript engine has no Ed25519 in its Web Crypto. Use Node 20 or newer, or a current browser on https or';
  if (what) return new ConfigError(`${what}: ${engine} localhost.`);
  return new ConfigError(
    `Signatures cannot be checked here: ${engine} localhost; without trust, bundles are opened unchecked.`,
  );
}

/** The bytes of a text in base64, filled up to whole groups of four (RFC 4648); undefined where it is none. */
function bytesOfBase64(text: string): Uint8Array | undefined {
  const letters = text.replace(/={1,2}$/, '');
  if (text.length % 4 || /[^A-Za-z0-9+/]/.test(letters)) return undefined;
  const bytes: number[] = [];
  let held = 0;
  let bits = 0;
  for (const letter of letters) {
    held = ((held << 6) | BASE64.indexOf(letter)) & 0xfff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((held >> bits) & 0xff);
  }
  return Uint8Array.from(bytes);
}
