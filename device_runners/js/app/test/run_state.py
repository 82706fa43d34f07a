"""A saved file of the app, opened and continued by the Python SDK: prints classes as JSON, and saves it again.

run_state.py SAVED BUNDLE CLASSES OUT PICTURE...

SAVED is unpacked; what it says of the images is printed. Then the classes in CLASSES, a folder of images each,
are learned on top, and the state is packed into OUT, in blocks as one of hundreds of classes would be.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.state import blocks

blocks.BLOCK_CLASSES = 2
saved, bundle, classes, out, *paths = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    state = Path(folder) / "state"
    shutil.unpack_archive(saved, state)
    learner = Learner.open(bundle, state, TrainingConfig(threads=1, epochs=8, train="centers"))
    pictures = [np.asarray(Image.open(path).convert("L"))[..., None] for path in paths]
    said = [str(label) for label in learner.predict(pictures).labels]
    tasks = [task.name for task in learner.tasks]
    task = Path(folder) / "by-python"
    shutil.copytree(classes, task / "train")
    learner.learn(Task.from_folder(task))
    # As a person would pack it: the folder itself.
    shutil.make_archive(out.removesuffix(".zip"), "zip", folder, "state")
print(json.dumps({"said": said, "tasks": tasks}))
