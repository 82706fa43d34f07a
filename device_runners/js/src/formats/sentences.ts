/** Sentences with places for values. */

/** A template with `{name}` replaced by the value of that name. */
export function filled(template: string, values: Readonly<Record<string, string | number>>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}
