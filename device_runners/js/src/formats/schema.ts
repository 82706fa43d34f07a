/**
 * JSON from outside, held against a schema of `csk_sdk/contract`: JSON Schema 2020-12, as far as those schemas use it.
 *
 * Python (`csk_sdk/formats/schema.py`) and TypeScript must say the same sentences, so what is found first is fixed: properties in
 * the schema's order, then all others in order of their names. Numbers are what JSON says: `1.0` is no integer, and a
 * number that is not finite is none.
 */

import { byCodePoint, dumps, isObject, type Json, JsonNumber, parseJson } from './json.js';

/** A manifest nests five deep. More costs a parser's stack, and each language's ends elsewhere. */
export const DEEPEST = 32;
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/gs;
const MOST_DIGITS = 19;
const SHOWN = 80;

export interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly maxProperties?: number;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly description?: string;
  /** Of a field that older files lack: what they are taken to say. */
  readonly default?: unknown;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
}

const NAMES: Readonly<Record<string, string>> = {
  object: 'an object',
  array: 'a list',
  string: 'a text',
  boolean: 'true or false',
  integer: 'a whole number',
  number: 'a finite number',
  null: 'null',
};

/** JSON as RFC 8259 has it, nested at most 32 deep. Throws SyntaxError or RangeError for anything else. */
export function parseShallow(text: string): Json {
  let depth = 0;
  for (const bracket of text.replace(STRING, '').matchAll(/[[\]{}]/g)) {
    depth += '[{'.includes(bracket[0]) ? 1 : -1;
    if (depth > DEEPEST) throw new RangeError(`nested more than ${DEEPEST} deep`);
  }
  return parseJson(text);
}

/** Whether JSON has a whole number here, of no more digits than are counted with. */
export function isInteger(value: Json | undefined): value is JsonNumber {
  return value instanceof JsonNumber && /^-?\d+$/.test(value.text) && value.text.length <= MOST_DIGITS;
}

/** What is first wrong with a value, as "PATH what", such as "sites[0].groups must be a whole number"; or undefined. */
export function violation(value: Json, schema: Schema, path = ''): string | undefined {
  if (schema.type === undefined) {
    const allowed = schema.enum ?? [];
    if (typeof value === 'string' && allowed.includes(value)) return undefined;
    const shown = typeof value === 'string' ? `is ${quoted(value)}, and ` : '';
    return `${path} ${shown}must be one of ${allowed.join(', ')}`;
  }
  const kinds = typeof schema.type === 'string' ? [schema.type] : schema.type;
  const kind = kinds.find((one) => is(value, one));
  if (kind === undefined) return `${path} must be ${kinds.map((one) => NAMES[one]).join(' or ')}`;
  if (isObject(value)) return ofObject(value, schema, path);
  if (Array.isArray(value)) return ofArray(value, schema, path);
  if (typeof value === 'string') return ofString(value, schema, path);
  if (!(value instanceof JsonNumber)) return undefined;
  return kind === 'integer' ? ofInteger(value, schema, path) : ofNumber(value, schema, path);
}

/** A text as JSON, cut after 80 characters: the same in both languages. */
export function quoted(text: string): string {
  return dumps(Array.from(text).slice(0, SHOWN).join(''));
}

function is(value: Json, kind: string): boolean {
  if (kind === 'integer') return isInteger(value);
  if (kind === 'number') return value instanceof JsonNumber && Number.isFinite(value.value);
  if (kind === 'null') return value === null;
  if (kind === 'object') return isObject(value);
  if (kind === 'array') return Array.isArray(value);
  return typeof value === kind;
}

function ofObject(value: { [key: string]: Json }, schema: Schema, path: string): string | undefined {
  const { properties = {}, additionalProperties: others = true, required = [], maxProperties } = schema;
  if (Object.keys(value).length > (maxProperties ?? Number.POSITIVE_INFINITY)) {
    return `${path} has more than ${maxProperties} entries`;
  }
  for (const [name, inner] of Object.entries(properties)) {
    const there = path ? `${path}.${name}` : name;
    if (!Object.hasOwn(value, name)) {
      if (required.includes(name)) return `${there} is missing`;
      continue;
    }
    const wrong = violation(value[name]!, inner, there);
    if (wrong !== undefined) return wrong;
  }
  if (others === true) return undefined;
  const unknown = Object.keys(value).filter((name) => !Object.hasOwn(properties, name));
  for (const name of unknown.sort(byCodePoint)) {
    const there = `${path}[${quoted(name)}]`;
    const wrong = others === false ? `${there} is not known` : violation(value[name]!, others, there);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

function ofArray(value: readonly Json[], schema: Schema, path: string): string | undefined {
  const wrong = outside(value.length, schema.minItems, schema.maxItems, `${path} must have`, ' entries');
  if (wrong !== undefined) return wrong;
  for (const [index, one] of value.entries()) {
    const found = violation(one, schema.items!, `${path}[${index}]`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function ofString(value: string, schema: Schema, path: string): string | undefined {
  const { minLength, maxLength, pattern, description } = schema;
  const length = Array.from(value).length;
  const wrong = outside(length, minLength, maxLength, `${path} must have`, ' characters');
  if (wrong !== undefined) return wrong;
  return pattern !== undefined && !new RegExp(pattern).test(value)
    ? `${path} must be ${description}`
    : undefined;
}

function outside(
  count: number,
  least = 0,
  most: number | undefined,
  says: string,
  unit: string,
): string | undefined {
  if (count >= least && count <= (most ?? Number.POSITIVE_INFINITY)) return undefined;
  return `${says} ${most === undefined ? `at least ${least}` : `from ${least} to ${most}`}${unit}`;
}

function ofInteger(value: JsonNumber, schema: Schema, path: string): string | undefined {
  const { minimum, maximum } = schema;
  return value.value >= minimum! && value.value <= maximum!
    ? undefined
    : `${path} is ${BigInt(value.text)}, and must be from ${minimum} to ${maximum}`;
}

function ofNumber({ value }: JsonNumber, schema: Schema, path: string): string | undefined {
  const { exclusiveMinimum: above, minimum: least, maximum: most } = schema;
  const high = above === undefined || value > above;
  if (high && (least === undefined || value >= least) && (most === undefined || value <= most)) {
    return undefined;
  }
  const parts = [
    ['above', above],
    ['at least', least],
    ['at most', most],
  ].filter(([, bound]) => bound !== undefined);
  return `${path} must be ${parts.map((part) => part.join(' ')).join(' and ')}`;
}
