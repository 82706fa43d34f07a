/** csk-sdk in a browser: a bundle beside the page, the state in IndexedDB. */

export { HttpBundle } from './httpBundle.js';
export { IndexedDbStorage } from './indexedDbStorage.js';
