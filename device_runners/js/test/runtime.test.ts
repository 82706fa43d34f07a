/** How sessions are opened. */

import { mkdtempSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { expect, test } from 'vitest';
import { Graph, type Runtime } from '../src/runtime/sessions.js';
import { BUNDLE } from './fixtures.js';

test('a session leaves nothing in the home of its user', async () => {
  const home = mkdtempSync(join(tmpdir(), 'csk-home-'));
  Object.assign(process.env, { HOME: home, XDG_CACHE_HOME: join(home, 'cache') });
  delete process.env.ORT_DISABLE_TELEMETRY;
  const model = await readFile(join(BUNDLE, 'prefix_model.onnx')).catch(() => undefined);
  const bytes = model ?? (await readFile(join(BUNDLE, 'eval_model.onnx')));
  await Graph.open(ort, bytes, 'graph', { threads: 1 }).catch(() => undefined);
  expect(readdirSync(home)).toEqual([]);
});

test('an application may ask for telemetry, and threads sleep between runs', async () => {
  const seen: object[] = [];
  const runtime = {
    Tensor: ort.Tensor,
    InferenceSession: {
      create: async (_model: Uint8Array, options?: object) => {
        seen.push(options ?? {});
        return { run: async () => ({}), release: async () => undefined };
      },
    },
  } as unknown as Runtime;
  process.env.ORT_DISABLE_TELEMETRY = '0';
  await Graph.open(runtime, new Uint8Array(), 'graph', { threads: 2 });
  expect(process.env.ORT_DISABLE_TELEMETRY).toBe('0');
  expect(seen).toMatchObject([
    { intraOpNumThreads: 2, extra: { session: { intra_op: { allow_spinning: '0' } } } },
  ]);
});
