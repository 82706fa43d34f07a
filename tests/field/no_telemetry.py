"""What a learner leaves in a user's home beside its state: nothing.

    python tests/field/no_telemetry.py BUNDLE

With this Python and its ONNX Runtime, a process of its own opens the bundle and predicts, with an empty HOME and an
empty cache folder. Prints what was left, and what is left where an application asks for telemetry, as a control; exits
1 for the first. Needs what a device needs, and nothing more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PREDICT = """
import sys
import numpy as np
from csk_sdk import Learner
learner = Learner.open(sys.argv[1], state=sys.argv[2])
spec = learner.bundle.manifest.input
learner.predict(np.zeros((1, *spec.size, spec.channels), np.float32 if spec.is_signal else np.uint8))
from csk_sdk.runtime.sessions import load_onnxruntime
print(load_onnxruntime().__version__)
"""


def left_behind(bundle: Path, **variables: str) -> tuple[list[str], str]:
    """Files in HOME and XDG_CACHE_HOME after a prediction, and the version of ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        home, cache = Path(folder) / "home", Path(folder) / "cache"
        home.mkdir()
        cache.mkdir()
        inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run(
            [sys.executable, "-c", PREDICT, str(bundle.absolute()), str(Path(folder) / "state")],
            env={**inherited, "HOME": str(home), "XDG_CACHE_HOME": str(cache), **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        files = [path.name for one in (home, cache) for path in sorted(one.rglob("*")) if path.is_file()]
        return files, done.stdout.strip()


def main() -> int:
    bundle = Path(sys.argv[1])
    files, version = left_behind(bundle)
    asked, _ = left_behind(bundle, ORT_DISABLE_TELEMETRY="0")
    words = [", ".join(found) or "nothing" for found in (files, asked)]
    print(f"onnxruntime {version}: left {words[0]}; where the application asks for telemetry: {words[1]}")
    return 1 if files else 0


if __name__ == "__main__":
    sys.exit(main())
