/** csk-sdk on phones: a state in files, whatever the file system can and cannot do. */

export { type FileSystem, VersionedStorage } from './versionedStorage.js';
