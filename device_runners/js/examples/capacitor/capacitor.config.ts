/** The web app in a shell for Android and iOS (docs/web-app.md#as-an-app-for-a-store). `npx cap add android` makes the project. */

import type { CapacitorConfig } from '@capacitor/cli';

const config: CapacitorConfig = {
  // Yours, before the first build: stores know an app by it, and it stays.
  appId: 'org.example.teach',
  appName: 'Teach',
  // What `make build-app BUNDLE=DIR` wrote.
  webDir: '../../app/dist',
  // Pages are served on https://localhost and capacitor://localhost, which is what cameras and IndexedDB ask for.
  server: { androidScheme: 'https' },
  // Everything is in the app: nothing is loaded from elsewhere, and links lead nowhere.
  ios: { allowsLinkPreview: false },
};

export default config;
