/** Where bundle and state lie on the phone: react-native-fs, as csk-sdk asks for it. */

import * as fs from '@dr.pogodin/react-native-fs';
import { fromByteArray, toByteArray } from 'base64-js';
import type { BundleSource } from 'csk-sdk';
import type { FileSystem } from 'csk-sdk/native';
import { Platform } from 'react-native';

/** The app's own folder, which uninstalling removes and backups keep. */
export const STATE_FOLDER = `${fs.DocumentDirectoryPath}/csk-state`;

export const phoneFiles: FileSystem = {
  async list(folder) {
    if (!(await fs.exists(folder))) return [];
    const entries = await fs.readDir(folder);
    return entries.filter((entry) => entry.isFile()).map(({ name, size }) => ({ name, size }));
  },
  async read(path) {
    return toByteArray(await fs.readFile(path, 'base64'));
  },
  async write(path, data) {
    await fs.mkdir(path.slice(0, path.lastIndexOf('/')));
    await fs.writeFile(path, fromByteArray(data), 'base64');
  },
  async rename(from, to) {
    await fs.moveFile(from, to);
  },
  async remove(path) {
    await fs.unlink(path);
  },
};

/** The bundle that was built into the app: android/app/src/main/assets/bundle, or `bundle` among the iOS resources. */
export const appBundle: BundleSource = {
  name: 'bundle',
  async read(name) {
    const path = `bundle/${name}`;
    if (Platform.OS === 'android') {
      if (!(await fs.existsAssets(path))) return undefined;
      return toByteArray(await fs.readFileAssets(path, 'base64'));
    }
    const whole = `${fs.MainBundlePath}/${path}`;
    return (await fs.exists(whole)) ? toByteArray(await fs.readFile(whole, 'base64')) : undefined;
  },
};
