import { defineConfig } from 'vitest/config';

/** Times, which are printed and no tests. */
export default defineConfig({ test: { include: ['tools/lessons.ts'], fileParallelism: false } });
