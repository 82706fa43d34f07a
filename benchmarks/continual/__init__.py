"""Continual-learning protocols, and csk-sdk beside other methods on them: `python -m benchmarks.continual --help`."""
