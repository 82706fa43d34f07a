/** Files of ONNX Runtime with WebGPU, of 27 MB: the service worker keeps them when they are asked for, and not before. */
export const LARGE = /webgpu|asyncify/;
