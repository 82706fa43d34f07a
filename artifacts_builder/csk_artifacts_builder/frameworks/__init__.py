"""Bundles from the frameworks that networks are trained in."""
