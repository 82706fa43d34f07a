"""Attacks on everything that docs/guarantees.md and docs/state.md promise: `make attack`."""
