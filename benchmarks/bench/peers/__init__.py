"""One module per peer: how it opens a method and does a step (see `bench.worker`).

Folders in the environment variable BENCH_PEERS hold more of them.
"""

import os

__path__ += filter(None, os.environ.get("BENCH_PEERS", "").split(os.pathsep))


class UnavailableError(Exception):
    """This peer cannot do this method here, and why."""
