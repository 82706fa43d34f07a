"""Frozen convolutions in int8."""
