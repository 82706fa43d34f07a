/** What an app for phones ships of the runner. */

export * from '../src/index.js';
export * from '../src/native/index.js';
