"""NaN and infinity never become a prediction, an accuracy, or part of a state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import open_learner
from csk_sdk import Learner, StateError, Task, TaskError
from csk_sdk.cli import app
from csk_sdk.network.predicting import Predictor
from learner.not_finite import WHITE, fragile_bundle, pictures, write_png

NOTHING = (
    r"^For {which} the network computes numbers that are not finite \(NaN or infinity\), so nothing can be said of it: "
    r"check the image\. If others fail, too, try another release of ONNX Runtime, or build the bundle again\.$"
)
LEARNING = (
    r"^For {which} the network computes numbers that are not finite \(NaN or infinity\), so nothing can "
    r"be learned from it: check the image\. .* Nothing was committed\.$"
)
LOSSES = ("cross-entropy", "binary-cross-entropy", "mse")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fragile")
    return {loss: fragile_bundle(folder / loss, loss=loss) for loss in LOSSES}


def task_of(images: np.ndarray, loss: str = "cross-entropy", name: str = "01") -> Task:
    labels = np.arange(len(images)) % 2
    if loss == "cross-entropy":
        return Task.from_arrays(name, images, labels, ["c", "d"], test_images=images, test_labels=labels)
    table = np.stack([labels, 1 - labels], axis=1).astype(np.float32)
    return Task.from_arrays(name, images, table, ["c", "d"], test_images=images, test_labels=table)


def with_white(at: int, count: int = 40) -> np.ndarray:
    images = pictures(count)
    images[at] = WHITE
    return images


@pytest.fixture
def learned(bundles: dict[str, Path], tmp_path: Path, loss: str) -> Learner:
    learner = open_learner(bundles[loss], tmp_path / "state", label_check=False, epochs=1)
    learner.learn(task_of(pictures(40), loss))
    return learner


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("task", [None, "base", "01"])
def test_a_prediction_names_the_picture(learned: Learner, task: str | None) -> None:
    good = pictures(3)
    assert len(learned.predict(good, task).labels) == 3
    for images in (np.concatenate([good, WHITE[None]]), [*good, WHITE]):
        with pytest.raises(TaskError, match=NOTHING.format(which="image 3")):
            learned.predict(images, task)
    with pytest.raises(TaskError, match=NOTHING.format(which="image 3")):
        learned.features([*good, WHITE])


@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_pictures_are_counted_over_all_that_were_handed_over(learned: Learner) -> None:
    with pytest.raises(TaskError, match=NOTHING.format(which="image 130")):
        learned.predict(with_white(130, 200))


@pytest.mark.parametrize("loss", LOSSES)
def test_an_evaluation_names_the_picture(learned: Learner) -> None:
    loss = learned.bundle.manifest.loss
    tested = task_of(with_white(33), loss)
    for scenario in ("task", "class"):
        with pytest.raises(TaskError, match=NOTHING.format(which=r"Task '01': test_images\[33\]")):
            learned.evaluate([tested], scenario)
    assert learned.state.load_scores() == {}


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_learned_and_nothing_is_committed(learned: Learner) -> None:
    loss = learned.bundle.manifest.loss
    few = learned.config.few_shot
    for few_shot in (few, 1000):
        config = replace(learned.config, few_shot=few_shot)
        with pytest.raises(TaskError, match=LEARNING.format(which=r"Task '02': images\[5\]")):
            learned.learn(task_of(with_white(5), loss, "02"), config)
    assert [task.name for task in learned.tasks] == ["01"]
    assert learned.state.load_progress() is None


@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_nothing_is_learned_from_a_stream(learned: Learner) -> None:
    labels = np.arange(40) % 2

    def feed(white: int, few_shot: int, held: int) -> None:
        config = replace(learned.config, few_shot=few_shot, sensitivity_batches=held)
        with learned.stream("02", ["e", "f"], config) as stream:
            for at in range(0, 40, 8):
                stream.observe(with_white(white)[at : at + 8], labels[at : at + 8])

    # In the first batches and in later ones, held back until the end, and where only heads are learned.
    for white, few_shot, held in ((3, 0, 2), (37, 0, 2), (37, 0, 32), (37, 1000, 2)):
        with pytest.raises(TaskError, match=LEARNING.format(which=f"image {white} of those fed")):
            feed(white, few_shot, held)
    assert [task.name for task in learned.tasks] == ["01"]


@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_a_picture_that_only_the_last_pass_sees_costs_nothing(
    learned: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many images: the head is fitted on fewer, and no step sees them if there is none."""
    task = task_of(with_white(5, 200), name="02")
    config = replace(learned.config, sensitivity_batches=1, batch_size=2, epochs=1, seconds=1e-9)
    with pytest.raises(TaskError, match=LEARNING.format(which=r"Task '02': images\[5\]")):
        learned.learn(task, config)
    assert [task.name for task in learned.tasks] == ["01"]


@pytest.mark.parametrize("loss", ["cross-entropy"])
@pytest.mark.parametrize("prefix_cache", ["off", "memory"])
@pytest.mark.parametrize("at", [5, 197])
@pytest.mark.parametrize("gradient_share", [0.5, 1.0])
def test_a_picture_that_a_step_sees_first_is_named(
    learned: Learner, gradient_share: float, at: int, prefix_cache: str
) -> None:
    """Not taken for a rate that is too high: the loss of its step is NaN; or so is what it would teach."""
    task = task_of(with_white(at, 200), name="02")
    config = replace(
        learned.config,
        **{"sensitivity_batches": 1, "batch_size": 2, "epochs": 2, "prefix_cache": prefix_cache},
        gradient_share=gradient_share,
    )
    with pytest.raises(TaskError, match=LEARNING.format(which=rf"Task '02': images\[{at}\]")):
        learned.learn(task, config)


@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_a_rate_that_is_too_high_is_no_fault_of_a_picture(learned: Learner) -> None:
    config = replace(learned.config, learning_rate=1e30, head_learning_rate=1e30, epochs=5)
    with pytest.raises(TaskError, match=r"(became|diverged).*lower --learning-rate"):
        learned.learn(task_of(pictures(40), name="02"), config)


def test_train_and_watch_name_the_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    for index, image in enumerate(with_white(6, 20)):
        write_png(tmp_path / "tasks/01/train" / "cd"[index % 2] / f"{index}.png", image)
    (tmp_path / "csk.toml").write_text("[training]\nlabel_check = false\nepochs = 1\n")
    options = ["--workspace", str(tmp_path), "--bundle", str(bundles["cross-entropy"])]
    watching = ["watch", "--once", "--settle", "0", "--nice", "0"]
    for command in (["train"], watching):
        told = CliRunner().invoke(app, [*command, *options])
        assert "tasks/01/train/c/6.png the network computes numbers" in " ".join(told.output.split())


@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_a_progress_checkpoint_never_holds_what_diverged(
    learned: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very step that overflows is checkpointed: the run ends there, and the next begins afresh."""
    from csk_sdk.learning.training import TaskTraining

    step = TaskTraining.step

    def overflow(self: TaskTraining, batch: object, schedule: float) -> float:
        loss = step(self, batch, schedule)  # type: ignore[arg-type]
        self.weight[0, 0] = np.inf
        return loss

    config = replace(learned.config, checkpoint_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(TaskTraining, "step", overflow)
        with pytest.raises(TaskError, match=r"'head.weight' is no longer finite.*Nothing was committed"):
            learned.learn(task_of(pictures(40), name="02"), config)
    assert learned.state.load_progress() is None
    assert learned.learn(task_of(pictures(40), name="02"), config).resumed_at_step == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_that_is_not_finite_decides_nothing(learned: Learner) -> None:
    whole = learned.state.load()
    broken = dict(whole.tensors)
    broken["head/01/bias"] = np.array([np.nan, 0], np.float32)
    predictor = Predictor(learned.bundle, replace(whole, tensors=broken))
    with pytest.raises(
        StateError, match=r"The head of task '01' holds numbers that are not finite .* roll back"
    ):
        predictor.head("01")
    with pytest.raises(StateError, match="not finite"):
        predictor.head()


@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_statistics_that_are_not_finite_decide_nothing(learned: Learner) -> None:
    whole = learned.state.load()
    broken = {
        name: np.full_like(array, np.nan) if name == "statistics.means" else array
        for name, array in whole.tensors.items()
    }
    assert any(name == "statistics.means" for name in broken)
    predictor = Predictor(learned.bundle, replace(whole, tensors=broken))
    with pytest.raises(StateError, match="The head of all classes holds numbers that are not finite"):
        predictor.head()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_that_overflows_says_nothing(learned: Learner) -> None:
    whole = learned.state.load()
    huge = {**whole.tensors, "head/01/weight": np.full_like(whole.tensors["head/01/weight"], 3e38)}
    head = Predictor(learned.bundle, replace(whole, tensors=huge)).head("01")
    with pytest.raises(TaskError, match=NOTHING.format(which="image 0")):
        head.predict(learned.features(pictures(2)))


def test_the_command_line_names_the_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    good = [write_png(tmp_path / f"{at:02}.png", picture) for at, picture in enumerate(pictures(20))]
    white = write_png(tmp_path / "white.png", WHITE)
    asked = ["predict", *map(str, [*good, white]), "--bundle", str(bundles["cross-entropy"]), "--json"]
    done = CliRunner().invoke(app, [*asked, "--workspace", str(tmp_path)])
    assert done.exit_code == 1
    assert "white.png the network computes numbers that are not finite" in " ".join(done.output.split())


def test_a_bundle_is_not_built_on_pictures_without_an_answer(tmp_path: Path) -> None:
    for name in "ab":
        for at, picture in enumerate(pictures(4)):
            write_png(tmp_path / "base" / name / f"{at}.png", picture)
    write_png(tmp_path / "base" / "b" / "2.png", WHITE)
    with pytest.raises(TaskError, match=r"For .*2\.png the network computes numbers that are not finite"):
        fragile_bundle(tmp_path / "made", base_data=tmp_path / "base")
    assert not (tmp_path / "made" / "bundle").exists()
