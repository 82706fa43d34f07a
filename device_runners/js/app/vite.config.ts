import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';
import { LARGE } from './src/large.js';

const here = dirname(fileURLToPath(import.meta.url));
const bundle = resolve(here, process.env.BUNDLE ?? 'out/bundle');
// The bundle of the app that devices have now, where `bundle` was built with --upgrade-from it.
const before = process.env.BEFORE ? resolve(here, process.env.BEFORE) : undefined;

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
      if (before !== undefined) requireUpgrade(before);
    },
    writeBundle: () => {
      cpSync(bundle, join(out, 'bundle'), { recursive: true });
      if (before !== undefined) cpSync(before, join(out, 'bundle.before'), { recursive: true });
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

/** Throws where what devices have learned on this bundle could not be carried over. */
function requireUpgrade(old: string): void {
  const manifest = join(old, 'manifest.json');
  if (!existsSync(manifest))
    throw new Error(`There is no bundle in ${old}: BEFORE is the one devices have now.`);
  const id = createHash('sha256').update(readFileSync(manifest)).digest('hex');
  const about = JSON.parse(readFileSync(join(bundle, 'manifest.json'), 'utf8')).upgrade;
  if (about?.bundle === id) return;
  throw new Error(
    `What was learned on ${old} cannot be carried over to ${bundle}: build that with --upgrade-from ${old}.`,
  );
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
