/** csk-sdk on Node: bundles and states in folders. */

export { FolderBundle } from './folderBundle.js';
export { FolderStorage } from './folderStorage.js';
