"""A device's folder: bundle, state, tasks and settings; watched, examined and verified."""
