/** csk-sdk: on-device incremental learning, on any JavaScript build of ONNX Runtime. */

export { Bundle } from './bundle/bundle.js';
export { type Manifest, type Site, type Trained, trainedBy } from './bundle/manifest.js';
export { type BundleSource, MemoryBundle } from './bundle/source.js';
export { DEFAULTS, type TrainingConfig } from './config.js';
export { type Picture, Preprocessing } from './data/pictures.js';
export type { Task } from './data/task.js';
export { type Choice, chooseWay, type Way } from './device/choosing.js';
export {
  BundleError,
  ConfigError,
  type Contradiction,
  ContradictionError,
  CskError,
  DivergedError,
  FleetError,
  LabelError,
  StateError,
  StateLockedError,
  StorageError,
  TaskError,
  type Twin,
  TwinError,
} from './errors.js';
export type { ApplyOptions, ExportOptions, FleetApplied, FleetExport } from './fleet/index.js';
export * as fleet from './fleet/index.js';
export { Learner, type LearnerOptions } from './learner.js';
export type { Adapted } from './learning/adapting.js';
export type { Upgraded } from './learning/carrying.js';
export type { HeadsOnlyBecause } from './learning/fewShot.js';
export type { Forgotten } from './learning/forgetting.js';
export type { Expected, LearnOptions, LearnReport, Progress, StopSignal } from './learning/report.js';
export type { StopReason } from './learning/stopping.js';
export type { ExpectedClass } from './method/decisions.js';
export type { LabelEvidence } from './method/labelCheck.js';
export type { LinearHead, Prediction } from './network/predicting.js';
export type { Runtime, RuntimeSession, RuntimeTensor } from './runtime/sessions.js';
export { copyState } from './state/copy.js';
export { MemoryStorage } from './state/memoryStorage.js';
export type { Generation, LearnedTask } from './state/record.js';
export { State } from './state/state.js';
export type { Storage, StorageLock } from './state/storage.js';
export { BASE } from './state/store.js';
export { type Place, type UpgradeOptions, upgrade, upgradeBack } from './upgrading.js';
export { VERSION } from './version.js';
