"""What two devices said, merged: merge_fleet.py BUNDLE CLASSES APP.cskc OUT.cskc; prints the classes as JSON.

The other device is of Python: it learns the classes in CLASSES, a folder of images each.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from csk_sdk import Learner, Task, TrainingConfig, fleet

bundle, classes, saved, out = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    task = Path(folder) / "by-python"
    shutil.copytree(classes, task / "train")
    learner = Learner.open(bundle, Path(folder) / "state", TrainingConfig(threads=1, few_shot=10**6))
    learner.learn(Task.from_folder(task))
    fleet.export(learner, Path(folder) / "python.cskc")
    report = fleet.merge([saved, Path(folder) / "python.cskc"], out)
print(json.dumps(report.classes))
