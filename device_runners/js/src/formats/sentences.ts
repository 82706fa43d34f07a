/** Sentences with places for values. */

/** A template with `{name}` replaced by the value of that name. */
export function filled(template: string, values: Readonly<Record<string, string | number>>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}

/** A share of 0 to 1 in whole percent. */
export function percent(share: number): string {
  return (100 * share).toFixed(0);
}

/** A number as Python's `:g` has it: six digits, an exponent below 1e-4 and from 1e6 on. */
export function general(value: number): string {
  const [digits, power] = value.toExponential(5).split('e') as [string, string];
  if (!Number.isFinite(value) || (Number(power) >= -4 && Number(power) < 6))
    return String(Number(value.toPrecision(6)));
  return `${Number(digits)}e${power[0]}${power.slice(1).padStart(2, '0')}`;
}

/** `value` with so many digits; what that rounds to zero is not below it. */
export function rounded(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace('-', '') : text;
}

/** 1 task, 2 tasks; a count that is no whole number comes as text. */
export function plural(count: number | string, one: string, many = `${one}s`): string {
  const text = typeof count === 'string' ? count : grouped(count);
  return `${text} ${text === '1' ? one : many}`;
}

/** A whole number with commas between thousands. */
export function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** The first of these names, "none" without any. */
export function listed(names: readonly string[], most = 20): string {
  return names.slice(0, most).join(', ') + (names.length > most ? ', ...' : '') || 'none';
}
