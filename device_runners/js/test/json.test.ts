import { describe, expect, it } from 'vitest';
import { byCodePoint, dumps, jsonOf, parseJson, plain, pythonNumber } from '../src/formats/json.js';

describe('JSON as Python writes it', () => {
  // Right column: what `json.dumps` of Python 3.11 prints.
  it.each([
    [0, '0'],
    [-0, '0'],
    [3, '3'],
    [0.1, '0.1'],
    [-2.5, '-2.5'],
    [1e-4, '0.0001'],
    [1.5e-5, '1.5e-05'],
    [1e-5, '1e-05'],
    [1.25e-7, '1.25e-07'],
    [5e-324, '5e-324'],
    [0.007276705147780697, '0.007276705147780697'],
    [1e16, '1e+16'],
    [1.7976931348623157e308, '1.7976931348623157e+308'],
    [123456789012345.6, '123456789012345.6'],
  ])('spells %d', (value, text) => {
    expect(pythonNumber(value)).toBe(text);
    expect(Number(text)).toBe(value + 0);
  });

  it('sorts keys by code point, escapes to ASCII and separates as Python does', () => {
    const value = { '\u{1f600}': 1, '\uffff': [true, null, {}], a: 'é"\\\n\u007f\u0001', b: [] };
    // json.dumps(value, sort_keys=True)
    expect(dumps(jsonOf(value), { sorted: true })).toBe(
      '{"a": "\\u00e9\\"\\\\\\n\u007f\\u0001", "b": [], "\\uffff": [true, null, {}], "\\ud83d\\ude00": 1}',
    );
    expect(byCodePoint('\u{1f600}', '\uffff')).toBeGreaterThan(0);
  });

  it('indents as Python does', () => {
    expect(dumps(jsonOf({ a: [1, 2], b: {}, c: [] }), { indent: 1 })).toBe(
      '{\n "a": [\n  1,\n  2\n ],\n "b": {},\n "c": []\n}',
    );
  });

  it('keeps how numbers are spelled', () => {
    const text = '{"a": 1.0, "b": [1e-05, -3, "n1", "1.0"], "__proto__": 2.50}';
    const parsed = parseJson(text);
    expect(dumps(parsed)).toBe(text);
    expect(plain(parsed)).toEqual(JSON.parse(text));
  });

  it.each(['', '{', '[01]', '{"a": NaN}', "{'a': 1}", '[1,]'])('refuses %s', (text) => {
    expect(() => parseJson(text)).toThrow(SyntaxError);
  });
});
