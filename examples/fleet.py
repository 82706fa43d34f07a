"""Three devices learn two digits each, and then know all ten: python examples/fleet.py --out out/demo-fleet

Each command is one that an operator types; only the files `*.cskc` travel. Needs the extra `[demo]`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from csk_sdk import Learner
from csk_sdk.demo import digits

DEVICES = {"kitchen": "01-four-five", "hall": "02-six-seven", "yard": "03-eight-nine"}


def csk_sdk(*arguments: str | Path) -> None:
    """Run one command, and show it."""
    shown = [Path(one).name if os.sep in str(one) else str(one) for one in arguments]
    print(f"$ csk-sdk {' '.join(shown)}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "csk_sdk", *map(str, arguments)], check=True, env=environment)


def accuracy(workspace: Path, data: digits.Digits) -> float:
    """Over the test images of all ten digits, in percent."""
    learner = Learner.open(workspace / "bundle", workspace / "state")
    said = learner.predict(data.test_images).labels
    return 100 * float(np.mean(said == np.array(digits.NAMES)[data.test_labels]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo-fleet"))
    out = parser.parse_args().out
    begun = time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    data = digits.load()
    digits.write_folders(data, out / "base-data", out / "tasks")
    print("workstation: building a bundle that knows the digits 0 to 3", flush=True)
    digits.build_bundle(out / "bundle", base_data=out / "base-data")
    for device, task in DEVICES.items():
        workspace = out / device
        workspace.mkdir()
        # Heads on the network as it is: what is merged is then exactly what one device would know.
        (workspace / "csk.toml").write_text('[training]\ntrain = "heads"\n', encoding="utf-8")
        shutil.copytree(out / "bundle", workspace / "bundle")
        shutil.copytree(out / "tasks" / task, workspace / "tasks" / task)
        print(f"\n{device}: learns {task}", flush=True)
        csk_sdk("train", "--workspace", workspace, "--no-evaluate")
        csk_sdk("fleet", "export", out / f"{device}.cskc", "--workspace", workspace)
    print("\nanywhere:", flush=True)
    files = [out / f"{device}.cskc" for device in DEVICES]
    csk_sdk("fleet", "merge", *files, "--out", out / "merged.cskc")
    alone = {device: accuracy(out / device, data) for device in DEVICES}
    for device in DEVICES:
        print(f"\n{device}:", flush=True)
        csk_sdk("fleet", "apply", out / "merged.cskc", "--workspace", out / device)
    print("\nAccuracy over all ten digits, in %\n\n            alone   merged")
    for device, before in alone.items():
        print(f"  {device:<8} {before:6.1f}   {accuracy(out / device, data):6.1f}")
    print(f"  one device that learned all three tasks {one_device(out, data):6.1f}")
    sizes = sum(path.stat().st_size for path in files) / 1e3
    print(f"\n{sizes:.0f} kB left the three devices, and no image. {time.perf_counter() - begun:.0f} s.")


def one_device(out: Path, data: digits.Digits) -> float:
    """The accuracy of a device that saw everything."""
    workspace = out / "one-device"
    learner = Learner.open(out / "bundle", workspace / "state", {"train": "heads", "threads": 1})
    for task in DEVICES.values():
        learner.learn(out / "tasks" / task)
    shutil.copytree(out / "bundle", workspace / "bundle")
    return accuracy(workspace, data)


if __name__ == "__main__":
    main()
