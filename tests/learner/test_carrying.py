"""Odd devices are upgraded, too: of an older csk-sdk, with damaged files, an unprotected base, or tables as labels."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import tables
from conftest import NAMES, Digits, build_digits_bundle, open_learner, write_pictures
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import BundleError, ConfigError, Learner, Task, upgrade
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, UPGRADE, sealed
from csk_sdk.method import carried_heads
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.ledger import LEDGER
from csk_sdk.state import LearnedTask
from csk_sdk.state.tensorfile import packed
from csk_sdk.workspace.upgrading import Upgrade
from learner.knowing import HELD_OUT, accuracy
from learner.upgrading import ALL, HEADS, TASKS, Bundles, further, known, upgraded, used

pytestmark = pytest.mark.slow
# Tasks of digits that others have, too, under names of their own.
TABLES = (
    ("01", (4, 5, 6, 7), ("loop", "above five", "prime")),
    ("02", (6, 7, 8, 9), ("stem", "even", "round")),
)
PAIRS = {"a": (4, 9), "b": (5, 8), "c": (4, 5, 6, 7, 8, 9)}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Bundles:
    return Bundles.made(tmp_path_factory.mktemp("bundles"), digits)


@pytest.fixture
def device(bundles: Bundles, tmp_path: Path, digits: Digits) -> Callable[..., Learner]:
    return lambda **settings: used(bundles.old, tmp_path / "device", digits, **settings)


def counts(learner: Learner) -> dict[str, float]:
    found = ClassStatistics.from_tensors(known(learner))
    return dict(zip(found.classes, found.counts.tolist(), strict=True))


def older(learner: Learner, drop: tuple[str, ...] = (), **lost: tuple[str, ...]) -> None:
    """As a csk-sdk would have left it that kept no contributions to some classes, by task, or no tensors `drop`."""

    def without(task: LearnedTask) -> LearnedTask:
        gone = lost.get(f"task_{task.name}", ())
        left = (
            {k: v for k, v in files.items() if k not in gone} for files in (task.contributions, task.carried)
        )
        return replace(task, **dict(zip(("contributions", "carried"), left, strict=True)))

    tensors = {name: tensor for name, tensor in known(learner).items() if name not in drop}
    with learner.state.lock():
        learner.state.commit(learner.generation.number, [without(task) for task in learner.tasks], tensors)


def damaged(learner: Learner, *names: str) -> None:
    """The files of what was contributed to some classes, cut short."""
    for task in learner.tasks:
        for name in names:
            if name in task.contributions:
                path = learner.state.folder / "ledger" / f"{task.contributions[name]}.safetensors"
                path.write_bytes(path.read_bytes()[:-100])


def test_damaged_contributions_are_left_and_the_totals_say_what_they_said(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    """A map that changes nothing copies files, and any other one reads them."""
    learner = device(**HEADS)
    before, scores = known(learner), accuracy(learner, digits, ALL)
    damaged(learner, "four", "nine")
    after, report = upgraded(learner, bundles.build("batches", batch_size=8))
    assert report.notes == ()
    assert set(after.tasks[0].contributions) == {"five", "six"}
    for name, tensor in known(after).items():
        if name.startswith("statistics.") and name != "statistics.classes":
            np.testing.assert_allclose(tensor, before[name], rtol=1e-5, atol=1e-4)
    assert accuracy(after, digits, ALL) == scores


def test_damaged_contributions_to_fewer_features(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device(**HEADS)
    before = counts(learner)
    damaged(learner, "four", "nine")
    after, _ = upgraded(learner, bundles.build("last", features="last"))
    assert counts(after) == before
    assert set(after.tasks[0].contributions) == {"four", "five", "six"}
    assert accuracy(after, digits, ALL) > 0.85


def test_of_a_class_of_two_tasks_what_one_contributed_counts(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    """The totals hold both, and would count the later one's images twice. Fewer new images count as many old ones."""
    learner = device(**HEADS)
    learner.learn(digits.task("03", (4, 9), train=30), replace=False)
    assert counts(learner)["four"] == 80
    older(learner, task_01=("four",))
    after, _ = upgraded(learner, bundles.build("last", features="last"))
    assert after.tasks[0].contributions["four"] == ""
    assert (counts(after)["four"], counts(after)["five"]) == (30, 40)


def test_what_was_replaced_stays_so(device: Callable[..., Learner], bundles: Bundles, digits: Digits) -> None:
    learner = device(**HEADS)
    learner.learn(digits.task("03", (4, 9), train=30), replace=True)
    assert learner.tasks[0].contributions["four"] == ""
    after, _ = upgraded(learner, bundles.build("last", features="last"))
    assert after.tasks[0].contributions["four"] == ""
    assert counts(after)["four"] == 30


def test_what_was_not_to_be_counted_is_not(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    learner = device(**HEADS, class_statistics=False)
    own = accuracy(learner, digits, TASKS["01"], "01")
    after, _ = upgraded(learner, bundles.build("further", further(tmp_path)))
    assert list(counts(after)) == [NAMES[digit] for digit in range(4)]
    assert [one.contributions for one in after.tasks] == [{}, {}]
    assert accuracy(after, digits, TASKS["01"], "01") >= own - 0.06


def test_centers_that_an_older_csk_sdk_trained(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    """Nobody knows how features have drifted then: what is known is carried over as it is."""
    learner = device()
    before = counts(learner)
    older(learner, LEDGER, task_01=("four", "five", "six"), task_02=("seven", "eight", "nine"))
    after, _ = upgraded(learner, bundles.build("narrower", features="last"))
    assert counts(after) == before
    assert not set(LEDGER) & set(known(after))
    assert accuracy(after, digits, ALL) > 0.85


def test_a_bundle_that_trains_other_layers_leaves_behind_what_training_moved(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device()
    new = bundles.build("fewer", trainable="from:/stage3/second/conv/Conv")
    after, report = upgraded(learner, new)
    assert report.notes == (
        "What training had moved in the old network is left behind: the new bundle has other features, trains other "
        "layers, or kernels as a whole where the old one trained their centers, or the other way round.",
    )
    untouched = after.bundle.checkpoint()
    for site in after.bundle.manifest.sites:
        np.testing.assert_array_equal(known(after)[f"center/{site.name}"], untouched[f"center/{site.name}"])
    assert accuracy(after, digits, ALL) > 0.85


def test_a_device_whose_base_nobody_protected(bundles: Bundles, tmp_path: Path, digits: Digits) -> None:
    """Its bundle counts no class of the base; the next one does."""
    plain = build_digits_bundle(tmp_path / "plain")
    new = build_digits_bundle(tmp_path / "new", base_data=bundles.base, upgrade_from=plain)
    learner = used(plain, tmp_path / "device", digits, **HEADS)
    after, _ = upgraded(learner, new)
    assert counts(after) == {**dict.fromkeys(NAMES[:4], 60.0), **dict.fromkeys(NAMES[4:], 40.0)}
    assert accuracy(after, digits, ALL) > 0.85


def test_a_way_back_that_tells_little_makes_heads_of_what_was_counted(
    device: Callable[..., Learner],
    bundles: Bundles,
    digits: Digits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = device(**HEADS)
    place = shutil.copytree(tmp_path / "device", tmp_path / "other")
    new = bundles.build("wide", features="wide")
    monkeypatch.setattr(carried_heads, "TELLS", 1.1)
    made, report = upgraded(learner, new)
    monkeypatch.undo()
    assert "The heads of 2 of 2 tasks were made anew, of what is known of their images." in report.notes
    mapped, report = upgraded(open_learner(place / "bundle", place / "state", **HEADS), new)
    assert not any("made anew" in note for note in report.notes)
    assert not np.allclose(known(made)["head/01/weight"], known(mapped)["head/01/weight"], rtol=0.1)
    for name in ("statistics.means", "statistics.counts"):
        np.testing.assert_array_equal(known(made)[name], known(mapped)[name])
    assert accuracy(made, digits, TASKS["01"], "01") > 0.9


@pytest.mark.parametrize("features", ["layers", "wide"])
def test_heads_over_fewer_features_do_as_well_as_those_learned_there(
    bundles: Bundles, digits: Digits, tmp_path: Path, features: str
) -> None:
    """Of new classes, and of such as cannot be told from known ones, and were never counted."""
    tasks = [digits.task(name, chosen) for name, chosen in TASKS.items()]
    tasks += [Task.from_arrays(*_renamed(digits, f"pair {name}", chosen)) for name, chosen in PAIRS.items()]
    old = bundles.build("old" if features == "layers" else "old-wide", features=features, upgrade_from=None)
    new = bundles.build(f"{features}-to-last", features="last", upgrade_from=old)
    shutil.copytree(old, tmp_path / "device" / "bundle")
    settings = {**HEADS, "max_forgetting": 3}
    learner = open_learner(tmp_path / "device" / "bundle", tmp_path / "device" / "state", **settings)
    again = open_learner(new, tmp_path / "again", **settings)
    for one in (learner, again):
        for task in tasks:
            one.learn(task, replace=False)
    assert any("" in task.contributions.values() for task in learner.tasks)
    wanted = _own(again, digits, tasks)
    after, report = upgraded(learner, new)
    assert _own(after, digits, tasks) >= wanted - 0.01
    assert accuracy(after, digits, ALL) >= accuracy(again, digits, ALL) - 0.01
    gone, of = (176, 240) if features == "layers" else (352, 416)
    assert report.notes == (
        f"{gone} of {of} features are gone, and what heads read of them is told by the others.",
        f"The heads of {len(tasks)} of {len(tasks)} tasks were made anew, of what is known of their images.",
    )


def _renamed(digits: Digits, name: str, chosen: tuple[int, ...]) -> tuple[str, Any, Any, list[str]]:
    return name, *digits.arrays(chosen, 0, 40), [f"{name} {digit}" for digit in chosen]


def _own(learner: Learner, digits: Digits, tasks: list[Task]) -> float:
    """How often images that nobody trained on are named right, on average over tasks, each among its own classes."""
    found = []
    for task in tasks:
        chosen = TASKS.get(task.name) or PAIRS[task.name.removeprefix("pair ")]
        images, labels = digits.arrays(chosen, *HELD_OUT)
        truth = np.array(task.classes)[labels]
        found.append(float(np.mean(learner.predict(images, task.name).labels == truth)))
    return float(np.mean(found))


def test_what_training_had_moved_and_what_is_gone_are_both_said(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device()
    new = bundles.build("last", features="last")
    plan = Upgrade.open(learner.bundle.folder, learner.state.folder, new).plan()
    assert (plan.exact, plan.added, plan.gone) == (False, 0, 176)
    _, report = upgraded(learner, new)
    assert (
        report.notes[0] == "176 of 240 features are gone, and what heads read of them is told by the others."
    )
    assert report.notes[1] == "The heads of 2 of 2 tasks were made anew, of what is known of their images."
    assert report.notes[2].startswith("What training had moved in the old network is left behind")


def test_labels_that_are_tables(tmp_path: Path, digits: Digits) -> None:
    names = ("even", "round")
    bundle = tables.attribute_bundle(digits, tmp_path)
    learner = open_learner(
        Path(shutil.copytree(bundle, tmp_path / "device" / "bundle")), tmp_path / "device" / "state"
    )
    task = tables.attribute_task(digits, "01", (4, 5, 6, 7), ("loop", "above five", "prime"))
    learner.learn(task)
    new = tmp_path / "new"
    build_artifacts(
        tmp_path / "attributes.onnx",
        new,
        BuildOptions(
            classes=names,
            mean=tables.NORMALIZE["mean"],
            std=tables.NORMALIZE["std"],
            flip=False,
            loss=BINARY_CROSS_ENTROPY,
            base_data=tmp_path / "base-data",
            features="layers",
            upgrade_from=bundle,
        ),
    )
    assert task.test is not None
    images = [task.test.images.read(index) for index in range(len(task.test))]
    truth = task.test.labels > 0.5

    def right(one: Learner) -> float:
        return float(np.mean((one.predict(images, "01").probabilities > 0.5) == truth))

    before = right(learner)
    after, report = upgraded(learner, new)
    assert report.carried == ("01",)
    # One file of all images, by which heads would be fitted anew where features went.
    assert len(set(after.tasks[0].contributions.values())) == 1
    assert list(counts(after)) == []
    assert right(after) >= before - 0.03


@pytest.mark.parametrize("train", ["heads", "centers"])
def test_tables_over_fewer_features(tmp_path: Path, digits: Digits, train: str) -> None:
    """Three labels at once of digits that the base has never seen, as well as where they are learned there."""
    old, new = _of_tables(tmp_path, digits)
    tasks = [tables.attribute_task(digits, *one) for one in TABLES]
    shutil.copytree(old, tmp_path / "device" / "bundle")
    learner = open_learner(tmp_path / "device" / "bundle", tmp_path / "device" / "state", train=train)
    again = open_learner(new, tmp_path / "again", train="heads")
    for one in (learner, again):
        for task in tasks:
            one.learn(task)
    before, wanted = _precision(learner, tasks), _precision(again, tasks)
    after, report = upgraded(learner, new)
    carried = _precision(after, tasks)
    assert carried >= wanted - 0.01
    assert carried >= before - 0.03
    assert report.notes[:2] == (
        "176 of 240 features are gone, and what heads read of them is told by the others.",
        "The heads of 2 of 2 tasks were made anew, of what is known of their images.",
    )


def test_tables_of_which_nothing_was_kept_are_said_to_be_doubtful(tmp_path: Path, digits: Digits) -> None:
    old, new = _of_tables(tmp_path, digits)
    shutil.copytree(old, tmp_path / "device" / "bundle")
    learner = open_learner(tmp_path / "device" / "bundle", tmp_path / "device" / "state", train="heads")
    for one in TABLES:
        learner.learn(tables.attribute_task(digits, *one))
    # What a task's images were goes with any of its labels: those of the forgotten are among them.
    learner.forget("loop")
    assert learner.tasks[0].contributions == {}
    assert len(list((learner.state.folder / "ledger").iterdir())) == 1
    learner.forget(task="02")
    assert not list((learner.state.folder / "ledger").iterdir())
    _, report = upgraded(learner, new)
    assert report.notes == (
        "176 of 240 features are gone, and what heads read of them is told by the others.",
        "Of the images of 1 task nothing is known: what heads read of features that are gone is told as images of the "
        "base have it, and may be wrong.",
    )


def _of_tables(folder: Path, digits: Digits) -> tuple[Path, Path]:
    """A bundle of attributes with all features, and one to follow it with fewer."""
    tables.attribute_bundle(digits, folder)
    options = BuildOptions(
        classes=("even", "round"),
        mean=tables.NORMALIZE["mean"],
        std=tables.NORMALIZE["std"],
        flip=False,
        loss=BINARY_CROSS_ENTROPY,
        base_data=folder / "base-data",
    )
    build_artifacts(folder / "attributes.onnx", folder / "layers", options)
    fewer = replace(options, features="last", upgrade_from=folder / "layers")
    build_artifacts(folder / "attributes.onnx", folder / "last", fewer)
    return folder / "layers", folder / "last"


def _precision(learner: Learner, tasks: list[Task]) -> float:
    """Mean average precision over tasks, as scikit-learn has it."""
    found = []
    for task in tasks:
        assert task.test is not None
        images = [task.test.images.read(index) for index in range(len(task.test))]
        scores = learner.predict(images, task.name).probabilities
        found.append(float(average_precision_score(task.test.labels > 0.5, scores, average="macro")))
    return float(np.mean(found))


def test_a_map_that_is_none(device: Callable[..., Learner], bundles: Bundles, tmp_path: Path) -> None:
    """Whole, and listed in the manifest, but of other features."""
    learner = device(**HEADS)
    damaged = Path(shutil.copytree(bundles.build("batches", batch_size=8), tmp_path / "damaged"))
    (damaged / UPGRADE).write_bytes(packed({"columns": np.arange(3)}))
    data = (damaged / UPGRADE).read_bytes()
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["files"][UPGRADE] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (damaged / "manifest.json").write_text(sealed(manifest))
    with pytest.raises(
        BundleError, match=r"what carries knowledge over to this bundle is not all there\. Build the"
    ):
        upgrade(learner.bundle.folder, learner.state.folder, damaged)


def test_tasks_that_are_here_and_cannot_be_learned_again(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    learner = device(**HEADS)
    inbox = tmp_path / "tasks"
    digits.save(digits.task("01", TASKS["01"]), inbox).write_bytes(b"nothing")
    write_pictures(inbox / "02" / "test", digits, TASKS["02"], 100, 110)
    new = bundles.build("batches", batch_size=8)
    upgrading = Upgrade.open(learner.bundle.folder, learner.state.folder, new, inbox)
    plan = upgrading.plan()
    assert (plan.carried, plan.learned_again) == (("01", "02"), ())
    (said,) = plan.not_again
    assert said.startswith("01 is carried over: its images cannot be read (")
    with pytest.raises(ConfigError, match=r"on_step is 'aloud', and must be a function of a sentence\."):
        upgrading.run("aloud")  # type: ignore[arg-type]


def test_where_all_is_learned_again_nothing_is_said_of_what_is_carried(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    learner = device(**HEADS)
    for name, chosen in TASKS.items():
        digits.save(digits.task(name, chosen), tmp_path / "tasks")
    after, report = upgraded(learner, bundles.build("further", further(tmp_path)), tasks=tmp_path / "tasks")
    assert (report.carried, report.learned_again, report.notes) == ((), ("01", "02"), ())
    assert accuracy(after, digits, ALL) > 0.85
