import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';
import { LARGE } from './src/large.js';

const here = dirname(fileURLToPath(import.meta.url));
const bundle = resolve(here, process.env.BUNDLE ?? 'out/bundle');

/** The bundle beside the page, and all files in the service worker's list: nothing comes from elsewhere. */
function offline(): Plugin {
  let out = '';
  return {
    name: 'offline',
    apply: 'build',
    configResolved: (config) => {
      out = resolve(here, config.build.outDir);
      if (!existsSync(join(bundle, 'manifest.json'))) {
        throw new Error(
          `There is no bundle in ${bundle}: set BUNDLE=DIR, or run "make app", which builds one.`,
        );
      }
    },
    writeBundle: () => {
      cpSync(bundle, join(out, 'bundle'), { recursive: true });
      const files = readdirSync(out, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && entry.name !== 'sw.js' && !LARGE.test(entry.name))
        .map((entry) => relative(out, join(entry.parentPath, entry.name)))
        .sort();
      const digest = createHash('sha256');
      for (const file of files) digest.update(file).update(readFileSync(join(out, file)));
      const worker = join(out, 'sw.js');
      const version = digest.digest('hex').slice(0, 16);
      const text = readFileSync(worker, 'utf8')
        .replace('__VERSION__', version)
        .replace(/\[[`'"]__FILES__[`'"]\]/, JSON.stringify(['./', ...files]));
      if (text.includes('__FILES__') || text.includes('__VERSION__'))
        throw new Error('sw.js was not filled in');
      writeFileSync(worker, text);
    },
  };
}

export default defineConfig({
  base: './',
  plugins: [offline()],
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    rolldownOptions: {
      input: { index: join(here, 'index.html'), sw: join(here, 'src/sw.ts') },
      output: { entryFileNames: (chunk) => (chunk.name === 'sw' ? 'sw.js' : 'assets/[name]-[hash].js') },
    },
  },
});
