/**
 * A fleet that learns together: what one device has learned, all know, and no image leaves a device.
 *
 *     const { bytes } = await fleet.export(learner, { name: 'kitchen' });  // a .cskc file, for `csk-sdk fleet merge`
 *     await fleet.apply(learner, merged);  // on each device, what that wrote
 *
 * Files travel as a fleet likes. docs/fleet.md, and docs/fleet-privacy.md for what a file reveals.
 */

export { type ApplyOptions, apply, type FleetApplied } from './applying.js';
export { type ExportOptions, exportFleet as export, type FleetExport } from './exporting.js';
