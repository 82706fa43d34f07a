import { defineConfig } from 'vite';

/** The page that a browser runs the conformance vectors in; ONNX Runtime is served beside it, as an application does. */
export default defineConfig({
  build: {
    lib: { entry: 'tools/page.ts', formats: ['es'], fileName: 'page' },
    outDir: 'out/page',
    rolldownOptions: { external: ['onnxruntime-web'] },
  },
  logLevel: 'warn',
});
