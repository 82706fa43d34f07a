/**
 * ONNX Runtime's binding, the one place that names it. Another one is a change of this file: all that is asked of it is the
 * API of onnxruntime-common (`Runtime` of csk-sdk). Which binding loads where: docs/react-native.md.
 */

import { ConfigError, type Runtime } from 'csk-sdk';

/** A binding's package, loaded when it is called. */
export type Binding = () => Promise<Runtime>;

export const onnxruntime: Binding = () => import('onnxruntime-react-native');

/**
 * The runtime. Throws ConfigError where the binding's native part is not in this app, or did not load: it throws while it is
 * imported, which would otherwise end the app at its start.
 */
export async function openRuntime(binding: Binding = onnxruntime): Promise<Runtime> {
  try {
    return await binding();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError(
      `ONNX Runtime did not load in this app (${reason}): build the app again with the versions that ` +
        'docs/react-native.md names, for this version of React Native.',
    );
  }
}
