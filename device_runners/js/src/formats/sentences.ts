/** Sentences with places for values. */

/** A template with `{name}` replaced by the value of that name. */
export function filled(template: string, values: Readonly<Record<string, string | number>>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}

/** A share of 0 to 1 in whole percent. */
export function percent(share: number): string {
  return (100 * share).toFixed(0);
}

/** The first of these names, "none" without any. */
export function listed(names: readonly string[], most = 20): string {
  return names.slice(0, most).join(', ') + (names.length > most ? ', ...' : '') || 'none';
}
