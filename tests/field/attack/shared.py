"""Blocks, which generations share: what it costs that one file of each is damaged, or both."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np

from field.attack.ground import Ground
from field.attack.promise import GUARANTEES, Tries, promise
from field.attack.victims import damage

TASKS = 7
# Two classes a task: all but the last lie in blocks that two generations list, at least.
BLOCK_CLASSES = 4


@promise(
    GUARANTEES,
    "What many generations share, blocks of tasks that lie further back, is there twice: one damaged file of each "
    "costs nothing.",
    "one of a block's two files",
    tries=200,
    least=4,
)
def a_shared_block_is_there_twice(tries: Tries, ground: Ground, place: Path) -> None:
    """One file of each shared block is lost, flipped or cut; every fourth time both of one of them are."""
    from csk_sdk import Bundle, verify
    from csk_sdk.state import State, blocks

    bundle = Bundle.open(ground.bundle)

    def opened(folder: Path) -> State:
        return State.open(folder, bundle.id, bundle.checkpoint(), keep=TASKS)

    with patch.object(blocks, "BLOCK_CLASSES", BLOCK_CLASSES):
        for number in range(1, TASKS + 1):
            _commit(opened(place / "kept"), number)
        for number in tries:
            state = place / "state"
            shutil.rmtree(state, ignore_errors=True)
            shutil.copytree(place / "kept", state)
            copies = sorted((state / "blocks").glob("*.copy.safetensors"))
            pairs = [(path.with_name(path.name.replace(".copy", "")), path) for path in copies]
            hit = {one.name: damage(one, tries.rng) for one in map(tries.rng.choice, pairs)}
            lost = tries.rng.choice(pairs) if number % 4 == 3 else ()
            for path in lost:
                path.unlink(missing_ok=True)
            with tries.one(f"damaged: {hit}, both files: {[path.name for path in lost]}"):
                assert len(pairs) == TASKS // 2
                if not lost:
                    assert _is_known(opened(state), TASKS)
                assert not verify(ground.bundle, state).ok
                assert verify(ground.bundle, state, repair=True).ok
                head = opened(state).head()
                assert head == TASKS if not lost else head < TASKS
                assert _is_known(opened(state), head)
                assert verify(ground.bundle, state).ok
                _commit(opened(state), head + 1)
                assert _is_known(opened(state), head + 1)


def _commit(state: object, number: int) -> None:
    """One more task, the `number`th."""
    from csk_sdk.state import LearnedTask

    with state.lock():  # type: ignore[attr-defined]
        before = state.load()  # type: ignore[attr-defined]
        task = LearnedTask(f"{number:02d}", (f"{number} a", f"{number} b"), 1, 2, 0.1, 0.1, 1, {})
        state.commit(before.number, (*before.tasks, task), _tensors(number))  # type: ignore[attr-defined]


def _tensors(known: int) -> dict[str, np.ndarray]:
    """Those after so many tasks: a head of each, a row of each class, and something that always changes."""
    heads = {f"head/{task:02d}/weight": np.full((2, 3), task, np.float32) for task in range(1, known + 1)}
    rows = np.repeat(np.arange(2 * known, dtype=np.float32), 3).reshape(2 * known, 3)
    return {**heads, "statistics.means": rows, "scatter": np.full(50, known, np.float32)}


def _is_known(state: object, known: int) -> bool:
    """Whether the current generation is that of so many tasks."""
    found = state.load()  # type: ignore[attr-defined]
    expected = _tensors(known)
    return (
        [task.name for task in found.tasks] == [f"{task:02d}" for task in range(1, known + 1)]
        and found.tensors.keys() == expected.keys()
        and all(np.array_equal(found.tensors[name], one) for name, one in expected.items())
    )
