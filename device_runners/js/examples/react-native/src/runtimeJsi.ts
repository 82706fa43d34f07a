/** Another binding of the same API, a TurboModule on Android: `openRuntime(onnxruntimeJsi)`. Nothing else names its package. */

import type { Binding } from './runtime';

export const onnxruntimeJsi: Binding = () => import('onnxruntime-react-native-jsi');
