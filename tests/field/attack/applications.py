"""Applications of their own that learn from a camera, or look on, and are killed."""

from __future__ import annotations

import json

import numpy as np


def stream(place: str, digits: str) -> int:
    """An application that learns from its camera and says when a task is committed."""
    from csk_sdk.workspace.folder import Workspace

    with np.load(digits) as file:
        images, labels = file["images"], file["labels"]
    learner = Workspace.open(place).learner()
    for name, members in (("A", (4, 5)), ("B", (6, 7))):
        if name in [task.name for task in learner.generation.tasks]:
            continue
        chosen = np.concatenate([np.flatnonzero(labels == digit)[:24] for digit in members])
        chosen = chosen.reshape(2, 3, 8).transpose(1, 0, 2).reshape(3, 16)  # both classes in each batch
        with learner.stream(name, classes=[f"{name}{digit}" for digit in members]) as fed:
            for batch in chosen:
                fed.observe(images[batch][..., None], (labels[batch] == members[1]).astype(np.int64))
        print(json.dumps({"committed": name}), flush=True)
    return 0


def upgrade(place: str, new: str) -> int:
    """An application that brings its device to another bundle, unless it has it, and says when that is done."""
    from pathlib import Path

    from csk_sdk import Bundle
    from csk_sdk.workspace.folder import Workspace

    space = Workspace.open(place)
    if space.open_bundle().id != Bundle.read_manifest(Path(new)).id:
        space.upgrade_to(new, relearn=False).run()
    print(json.dumps({"upgraded": new}), flush=True)
    return 0


def look_on(place: str, digits: str, times: int) -> int:
    """An application that predicts again and again, with whatever is learned by then."""
    from csk_sdk.workspace.folder import Workspace

    with np.load(digits) as file:
        images = file["images"][:4][..., None]
    for _ in range(times):
        learner = Workspace.open(place).learner()
        assert len(learner.predict(images).labels) == len(images)
    return 0
