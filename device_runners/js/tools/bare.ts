/** What an engine without any of the web's globals runs (test/bareEngine.test.ts): the runner, and the conformance cases. */

export * from '../src/index.js';
export { VersionedStorage } from '../src/native/index.js';
export { runConformance } from './conformance.js';
