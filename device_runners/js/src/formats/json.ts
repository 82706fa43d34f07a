/**
 * JSON as Python writes it, so that a record's checksum is the same number here and there.
 *
 * A checksum is a sha256 over `json.dumps(record, sort_keys=True)`: keys sorted by code point, ", " and ": " between
 * them, ASCII only, and each number as Python spells it. `1.0` is not `1` there, so numbers keep their spelling.
 */

/** A number and how it was written. */
export class JsonNumber {
  constructor(readonly text: string) {}

  get value(): number {
    return Number(this.text);
  }
}

export type Json = null | boolean | string | JsonNumber | Json[] | { [key: string]: Json };

// A string, or a number; valid JSON has no other place where a digit may stand.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/gs;

/** Parse, keeping how numbers are written. Throws SyntaxError (or RangeError, nested too deeply) for what is no JSON. */
export function parseJson(text: string): Json {
  JSON.parse(text);
  const marked = text.replace(TOKEN, (token) =>
    token.startsWith('"') ? `"s${token.slice(1)}` : `"n${token}"`,
  );
  return unmarked(JSON.parse(marked));
}

function unmarked(value: unknown): Json {
  if (typeof value === 'string')
    return value.startsWith('n') ? new JsonNumber(value.slice(1)) : value.slice(1);
  if (Array.isArray(value)) return value.map(unmarked);
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key.slice(1), unmarked(entry)]));
  }
  return value as null | boolean;
}

/** Ordinary values: numbers without their spelling. */
export function plain(value: Json): unknown {
  if (value instanceof JsonNumber) return value.value;
  if (Array.isArray(value)) return value.map(plain);
  if (isObject(value))
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
  return value;
}

/** Ordinary values as `Json`, numbers spelled as Python does. Entries that are undefined are left out. */
export function jsonOf(value: unknown): Json {
  if (typeof value === 'number') return new JsonNumber(pythonNumber(value));
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (value instanceof JsonNumber) return value;
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value === 'object') {
    const known = Object.entries(value as object).filter(([, one]) => one !== undefined);
    return Object.fromEntries(known.map(([key, one]) => [key, jsonOf(one)]));
  }
  throw new TypeError(`${typeof value} cannot be stored as JSON`);
}

/** Whether a `Json` is an object. */
export function isObject(value: Json | undefined): value is { [key: string]: Json } {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonNumber)
  );
}

export interface Spelling {
  readonly sorted?: boolean;
  readonly indent?: number;
  /** Without a space behind commas and colons. */
  readonly compact?: boolean;
  /** All characters as they are, but for those that JSON has no other way for. */
  readonly unescaped?: boolean;
}

/**
 * As `json.dumps(value, sort_keys=sorted, indent=indent)` in Python, or with `separators=(",", ":")`, and with
 * `ensure_ascii=False`.
 */
export function dumps(value: Json, options: Spelling = {}, level = 0): string {
  if (value instanceof JsonNumber) return value.text;
  const quoted = options.unescaped ? JSON.stringify : pythonString;
  if (typeof value === 'string') return quoted(value);
  if (value === null || typeof value === 'boolean') return String(value);
  const inner = (one: Json): string => dumps(one, options, level + 1);
  const keys = Array.isArray(value) ? [] : Object.keys(value);
  if (options.sorted) keys.sort(byCodePoint);
  const pieces = Array.isArray(value)
    ? value.map(inner)
    : keys.map((key) => `${quoted(key)}${options.compact ? ':' : ': '}${inner(value[key]!)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  if (!pieces.length || options.indent === undefined)
    return open + pieces.join(options.compact ? ',' : ', ') + close;
  const pad = ' '.repeat(options.indent * (level + 1));
  const end = ' '.repeat(options.indent * level);
  return `${open}\n${pieces.map((piece) => pad + piece).join(',\n')}\n${end}${close}`;
}

/** A number as Python spells it: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on. */
export function pythonNumber(value: number): string {
  if (!Number.isFinite(value)) throw new TypeError(`${value} cannot be stored as JSON`);
  if (Number.isSafeInteger(value)) return String(value === 0 ? 0 : value);
  const [mantissa, power] = value.toExponential().split('e') as [string, string];
  const exponent = Number(power);
  if (exponent >= -4 && exponent < 16) {
    const text = value.toString();
    return text.includes('.') ? text : `${text}.0`;
  }
  return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
}

/** A number that is a float in Python, whole or not. */
export function pythonFloat(value: number): JsonNumber {
  const whole = Number.isInteger(value) && Math.abs(value) < 1e16;
  return new JsonNumber(whole ? `${value}.0` : pythonNumber(value));
}

const SHORT: Record<string, string> = { '\b': '\\b', '\f': '\\f', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function pythonString(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what JSON escapes
  const escaped = text.replace(/["\\]|[\u0000-\u001f]|[^\u0000-\u007f]/g, (one) => {
    if (one === '"' || one === '\\') return `\\${one}`;
    return SHORT[one] ?? `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return `"${escaped}"`;
}

/** Python's order of strings; JavaScript's own puts what lies above U+FFFF too early. */
export function byCodePoint(a: string, b: string): number {
  const left = Array.from(a, (one) => one.codePointAt(0)!);
  const right = Array.from(b, (one) => one.codePointAt(0)!);
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    if (left[i] !== right[i]) return left[i]! - right[i]!;
  }
  return left.length - right.length;
}
