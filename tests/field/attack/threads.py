"""Several threads on one learner, and second writers: in Python; JavaScript's are in overlapping.test.ts."""

from __future__ import annotations

import threading
from pathlib import Path

from field.attack.ground import Ground, task_of
from field.attack.promise import GUARANTEES, Tries, promise


@promise(
    GUARANTEES,
    "Threads may share one Learner: each predict, features, evaluate and export ends on the generation that it began "
    "with, whatever is learned or rolled back meanwhile; in JavaScript the same for calls that overlap.",
    "A second writer, in another process, thread or promise, on the same learner or another, is refused in one "
    "sentence at once, and costs the first nothing.",
    tries=400,
    least=20,
)
def threads_share_a_learner(tries: Tries, ground: Ground, place: Path) -> None:
    """Predictions while another thread learns and goes back again and again: each is one generation's, to the bit.

    And whoever would write meanwhile is refused.
    """
    from csk_sdk import Learner, StateLockedError
    from csk_sdk.config import TrainingConfig

    config = TrainingConfig(
        threads=1, epochs=1, few_shot=0, train="centers", max_forgetting=100.0, label_check=False
    )
    learner = Learner.open(ground.bundle, place / "state", config)
    images, _ = ground.digits()
    pictures = images[tries.numpy.permutation(len(images))[:100]]
    learner.learn(task_of(ground, "01", (4, 5)))
    answers = [learner.predict(pictures)]
    learner.rollback("base")
    answers.append(learner.predict(pictures))
    right = [(one.classes, one.probabilities.tobytes()) for one in answers]
    over = threading.Event()
    problems: list[str] = []

    def write() -> None:
        while not over.is_set():
            try:
                if not learner.tasks:
                    learner.learn(task_of(ground, "01", (4, 5)))
                learner.rollback("base")
            except StateLockedError:
                continue  # between two of its own writes the other one was let in
            except Exception as error:
                problems.append(f"the writer: {type(error).__name__}: {error}")
                return

    writer = threading.Thread(target=write)
    writer.start()
    refused = 0
    try:
        for number in tries:
            with tries.one("a prediction, and a second writer"):
                found = learner.predict(pictures)
                assert (found.classes, found.probabilities.tobytes()) in right, "of no generation"
                if number % 5 == 0:
                    other = learner if number % 2 else Learner.open(ground.bundle, place / "state", config)
                    try:
                        with other.state.lock():
                            pass
                    except StateLockedError as error:
                        refused += 1
                        assert str(error).endswith("nothing was changed.")
    finally:
        over.set()
        writer.join()
    for problem in problems:
        tries.fault(problem)
    tries.notes.append(f"second writers refused {refused}")
