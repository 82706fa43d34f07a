/** Does what came out of JSON have the types that are expected? JSON from outside may hold anything. */

/** The path of the first value that is not of its type, '' for the value itself; undefined if all are. */
export type Check = (value: unknown) => string | undefined;

const are =
  (fits: (value: unknown) => boolean): Check =>
  (value) =>
    fits(value) ? undefined : '';

export const text = are((value) => typeof value === 'string');
export const number = are((value) => typeof value === 'number');
export const integer = are((value) => Number.isSafeInteger(value));

export const optional =
  (inner: Check): Check =>
  (value) =>
    value === undefined ? undefined : inner(value);

export const each =
  (inner: Check): Check =>
  (value) => {
    if (!Array.isArray(value)) return '';
    return first(value.map((one, index) => [`[${index}]`, inner(one)]));
  };

export const record =
  (inner: Check): Check =>
  (value) =>
    isRecord(value)
      ? first(Object.entries(value).map(([key, one]) => [`[${key.slice(0, 80)}]`, inner(one)]))
      : '';

/** An object with these fields; a 'closed' one has no others. */
export const fieldsOf =
  (known: Record<string, Check>, kind: 'open' | 'closed'): Check =>
  (value) => {
    if (!isRecord(value)) return '';
    const unknown = kind === 'closed' && Object.keys(value).find((key) => !Object.hasOwn(known, key));
    if (typeof unknown === 'string') return `.${unknown.slice(0, 80)}`;
    return first(
      Object.entries(known).map(([key, inner]) => [
        `.${key}`,
        inner(Object.hasOwn(value, key) ? value[key] : undefined),
      ]),
    );
  };

/** As a `Check`, without the leading dot. */
export function mistyped(value: unknown, check: Check): string | undefined {
  return check(value)?.replace(/^\./, '');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function first(problems: [string, string | undefined][]): string | undefined {
  const found = problems.find(([, problem]) => problem !== undefined);
  return found && found[0] + found[1];
}
