"""What was learned on one bundle is carried over to the next, together with the bundle, and can be taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, build_digits_bundle, open_learner
from csk_sdk import (
    BundleError,
    ConfigError,
    Learner,
    StateError,
    StateLockedError,
    TaskError,
    upgrade,
    upgrade_back,
    verify,
)
from csk_sdk.contract.manifest import UPGRADE
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.projection import is_frozen
from csk_sdk.state.handover import Places
from csk_sdk.workspace.upgrading import Upgrade
from learner.knowing import accuracy
from learner.upgrading import ALL, HEADS, TASKS, Bundles, further, known, upgraded, used


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Bundles:
    return Bundles.made(tmp_path_factory.mktemp("bundles"), digits)


@pytest.fixture
def device(bundles: Bundles, tmp_path: Path, digits: Digits) -> Callable[..., Learner]:
    def made(bundle: Path | None = None, name: str = "device", **settings: Any) -> Learner:
        return used(bundle or bundles.old, tmp_path / name, digits, **settings)

    return made


@pytest.mark.slow
@pytest.mark.parametrize("settings", [HEADS, {}], ids=["heads", "trained"])
def test_where_all_stays_nothing_changes(
    device: Callable[..., Learner], bundles: Bundles, settings: dict[str, Any], digits: Digits
) -> None:
    learner = device(**settings)
    before, tasks = known(learner), learner.tasks
    scores = accuracy(learner, digits, ALL)
    same = bundles.build("batches", batch_size=8)
    assert Upgrade.open(learner.bundle.folder, learner.state.folder, same).plan().exact
    after, report = upgraded(learner, same)
    assert report.carried == ("01", "02")
    assert report.notes == ()
    assert after.bundle.manifest.batch_size == 8
    assert set(known(after)) == set(before)
    for name, tensor in known(after).items():
        if settings or not name.startswith("statistics."):
            assert tensor.tobytes() == before[name].tobytes(), name
        else:
            # The map of a sum, and the sum of what was mapped.
            np.testing.assert_allclose(
                tensor, before[name], rtol=1e-4, atol=1e-4 * np.abs(before[name]).max()
            )
    assert [one.contributions for one in after.tasks] == [one.contributions for one in tasks]
    assert [one.carried for one in after.tasks] == [one.carried for one in tasks]
    assert accuracy(after, digits, ALL) == scores
    # And it lives on: what was carried can be forgotten, and more be learned.
    assert after.forget("four").classes == ("four",)
    after.learn(digits.task("03", (4, 5)))
    assert accuracy(after, digits, ALL) > scores - 0.03


@pytest.mark.slow
def test_int8_carries_what_float32_learned(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device()
    after, report = upgraded(learner, bundles.build("int8", precision="int8"))
    assert report.notes == ()
    assert after.bundle.manifest.upgrade is not None
    assert after.bundle.manifest.upgrade.kept == after.bundle.manifest.head.features
    assert accuracy(after, digits, ALL) >= accuracy(device(name="before"), digits, ALL) - 0.003


@pytest.mark.slow
def test_narrower_features_are_those_columns_of_what_is_known(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device(**HEADS)
    before = known(learner)
    narrow = bundles.build("last", features="last")
    after, _ = upgraded(learner, narrow)
    features = after.bundle.manifest.head.features
    again = device(narrow, "again", **HEADS)
    ours, theirs = known(after), known(again)
    np.testing.assert_allclose(ours["statistics.means"], before["statistics.means"][:, :features], atol=1e-5)
    np.testing.assert_allclose(
        ours["statistics.scatter"],
        theirs["statistics.scatter"],
        rtol=1e-3,
        atol=1e-3 * np.diag(theirs["statistics.scatter"]).max(),
    )
    assert abs(accuracy(after, digits, ALL) - accuracy(again, digits, ALL)) <= 0.003


@pytest.mark.slow
def test_what_an_older_csk_sdk_learned_is_carried_by_its_totals(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device(**HEADS)
    older = [replace(task, contributions={}, carried={}) for task in learner.tasks]
    with learner.state.lock():
        learner.state.commit(learner.generation.number, older, learner.generation.tensors)
    before = ClassStatistics.from_tensors(learner.generation.tensors)
    after, _ = upgraded(learner, bundles.build("narrower", features="last"))
    statistics = ClassStatistics.from_tensors(known(after))
    counts = dict(zip(statistics.classes, statistics.counts, strict=True))
    assert counts == dict(zip(before.classes, before.counts, strict=True))
    assert accuracy(after, digits, ALL) > 0.85


@pytest.mark.slow
def test_wider_features_are_no_worse_than_before_and_it_says_what_is_missing(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device(**HEADS)
    before = accuracy(learner, digits, ALL)
    own = accuracy(learner, digits, TASKS["01"], "01")
    after, report = upgraded(learner, bundles.build("wide", features="wide"))
    assert accuracy(after, digits, ALL) >= before - 0.005
    assert accuracy(after, digits, TASKS["01"], "01") >= own - 0.005
    assert "of 416 features are new" in report.notes[0]


@pytest.mark.slow
def test_another_network_by_a_map(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    learner = device()
    new = bundles.build("further", further(tmp_path))
    after, report = upgraded(learner, new)
    again = device(new, "again", **HEADS)
    # The fit has seen four digits only; 5x10 classes of CIFAR-100 are in benchmarks/living.py.
    assert accuracy(after, digits, ALL) >= accuracy(again, digits, ALL) - 0.06
    assert accuracy(after, digits, TASKS["02"], "02") >= accuracy(again, digits, TASKS["02"], "02") - 0.06
    assert any("stay frozen from now on" in note for note in report.notes)
    sites = [one.name for one in after.bundle.manifest.sites]
    assert all(is_frozen(known(after)[f"moment/{name}"]) for name in sites)
    # The base is known as the new bundle knows it, and nothing says more about carried classes than is known.
    np.testing.assert_array_equal(
        known(after)["statistics.means"][:4], after.bundle.checkpoint()["statistics.means"]
    )
    ours, theirs = (
        np.trace(known(one)["statistics.scatter"]) / known(one)["statistics.counts"].sum()
        for one in (after, again)
    )
    assert 0.9 < ours / theirs < 1.2


def test_where_all_is_frozen_new_classes_get_heads(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    after, _ = upgraded(device(**HEADS), bundles.build("further", further(tmp_path)))
    learner = open_learner(after.bundle.folder, after.state.folder)
    report = learner.learn(digits.task("03", (4, 7)))
    assert (report.heads_only, report.heads_only_because) == (True, "frozen")
    assert "all trainable layers are frozen since this device was upgraded" in report.warnings[0]
    with learner.stream("04", ["four", "seven"]) as stream:
        stream.observe(*digits.arrays((4, 7), 0, 40))
    assert stream.report.heads_only_because == "frozen"


def test_a_frozen_site_is_never_trained_and_others_are(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    after, report = upgraded(device(), bundles.build("sites", trainable="all"))
    assert "3 of 7 trainable layers stay frozen" in report.notes[0]
    learner = open_learner(after.bundle.folder, after.state.folder, energy=0.5)
    before = known(learner)
    learned = learner.learn(digits.task("03", (4, 7)))
    for name, protected in learned.protected.items():
        kept, of = protected.split("/")
        frozen = is_frozen(before[f"moment/{name}"])
        assert (kept == of) == frozen
        assert is_frozen(known(learner)[f"moment/{name}"]) == frozen
        center = f"center/{name}"
        assert np.array_equal(known(learner)[center], before[center]) == frozen


def test_what_is_hidden_stays_hidden_and_what_both_know_is_one_class(
    bundles: Bundles, device: Callable[..., Learner], digits: Digits
) -> None:
    learner = device(**HEADS)
    learner.forget("two")
    learner.rename("nine", "9")
    after, report = upgraded(learner, bundles.build("batches", batch_size=8))
    assert after.generation.hidden == ("two",)
    assert "two" not in after.classes
    assert "9" in after.classes
    assert report.merged == ()


def test_a_class_that_the_new_base_knows_too(
    bundles: Bundles, device: Callable[..., Learner], digits: Digits
) -> None:
    learner = device(**HEADS)
    learner.rename("nine", "zero again")
    new = bundles.folder / "renamed"
    build_digits_bundle(
        new,
        base_data=renamed_base(bundles),
        classes=["zero again", "one", "two", "three"],
        upgrade_from=bundles.old,
    )
    after, report = upgraded(learner, new)
    assert report.merged == ("zero again",)
    assert report.notes == ("The new base does not know zero.",)
    assert after.classes.count("zero again") == 1


def renamed_base(bundles: Bundles) -> Path:
    folder = bundles.folder / "renamed-base"
    shutil.copytree(bundles.base, folder)
    (folder / "zero").rename(folder / "zero again")
    return folder


def test_tasks_whose_images_are_here_are_learned_again(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    learner = device(**HEADS)
    inbox = tmp_path / "tasks"
    digits.save(digits.task("02", TASKS["02"]), inbox)
    digits.save(digits.task("01", (4, 5)), inbox)
    new = bundles.build("further", further(tmp_path))
    plan = Upgrade.open(learner.bundle.folder, learner.state.folder, new, inbox).plan()
    assert (plan.carried, plan.learned_again) == (("01",), ("02",))
    assert plan.not_again == ("01 is carried over: its folder has other classes than are known of it now.",)
    assert plan.memory_bytes > 0
    assert plan.disk_bytes > sum(one.stat().st_size for one in new.rglob("*"))
    said: list[str] = []
    after, report = upgraded(learner, new, tasks=inbox, on_step=said.append)
    assert (report.carried, report.learned_again) == (("01",), ("02",))
    assert said[-1] == "Learning 02 again"
    assert [one.name for one in after.tasks] == ["01", "02"]
    assert after.tasks[1].notes != after.tasks[0].notes


def test_what_cannot_be_learned_again_changes_nothing(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits, tmp_path: Path
) -> None:
    learner = device(**HEADS)
    task = digits.task("02", TASKS["02"])
    path = digits.save(task, tmp_path / "tasks")
    with np.load(path, allow_pickle=False) as arrays:
        content = dict(arrays)
    content["labels"] = np.random.default_rng(0).permutation(content["labels"])
    np.savez(path, **content)
    before = judge(learner)
    with pytest.raises(TaskError, match="Nothing was upgraded; with --no-relearn"):
        upgrade(
            learner.bundle.folder,
            learner.state.folder,
            bundles.build("batches", batch_size=8),
            tmp_path / "tasks",
        )
    assert judge(learner) == before


def test_the_way_back(device: Callable[..., Learner], bundles: Bundles, digits: Digits) -> None:
    learner = device(**HEADS)
    before = judge(learner)
    after, _ = upgraded(learner, bundles.build("batches", batch_size=8))
    after.learn(digits.task("03", (4, 9)))
    upgrade_back(after.bundle.folder, after.state.folder)
    assert judge(learner) == before
    with pytest.raises(StateError, match="There is no way back"):
        upgrade_back(after.bundle.folder, after.state.folder)


def test_forget_says_that_the_way_back_leads_to_what_it_forgot(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device(**HEADS)
    assert not [one for one in learner.forget("four").remains if "upgrade" in one]
    after, _ = upgraded(learner, bundles.build("batches", batch_size=8))
    before = Places(after.bundle.folder, after.state.folder).before()
    remains = after.forget("five").remains
    assert remains[-1] == (
        f"the state of before the last upgrade, {before[1]}, to which `csk-sdk upgrade --back` leads: remove it "
        f"together with {before[0]}, and what it knows is gone, and so is the way back"
    )
    assert "five" in learner_at(before[1]), "the sentence is true"
    for folder in before:
        shutil.rmtree(folder)
    assert not [one for one in after.forget("six").remains if "upgrade" in one]
    with pytest.raises(StateError, match="There is no way back"):
        upgrade_back(after.bundle.folder, after.state.folder)
    assert "seven" in open_learner(after.bundle.folder, after.state.folder).classes


def test_a_forgetting_that_was_interrupted_is_finished_before_an_upgrade(
    device: Callable[..., Learner], bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = device(**HEADS)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("csk_sdk.state.forgetting.forget_generations", killed)
        with pytest.raises(KeyboardInterrupt):
            learner.forget("four")
    assert "four" in learner_at(learner.state.folder)
    after, _ = upgraded(learner, bundles.build("batches", batch_size=8))
    before = Places(after.bundle.folder, after.state.folder).before()[1]
    assert "five" in learner_at(before)
    assert "four" not in learner_at(before)


def learner_at(state: Path) -> str:
    return "".join(path.read_text() for path in state.glob("generations/*.json"))


def test_tasks_that_came_over_together_have_one_generation(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    after, _ = upgraded(device(**HEADS), bundles.build("batches", batch_size=8))
    after.learn(digits.task("03", (4, 9)))
    with pytest.raises(StateError) as refused:
        after.rollback("01")
    assert str(refused.value) == (
        "'01' was carried over by an upgrade, together with 02, in one generation: there is none that ends with it. "
        "`csk-sdk upgrade --back` takes the upgrade back, and `csk-sdk rollback --to 02` leads to what it brought. "
        "Known: base, 02, 03."
    )
    with pytest.raises(StateError, match=r"has no generation of task '04'\. Known: base, 02, 03\."):
        after.rollback("04")
    assert [one.name for one in after.rollback("02").tasks] == ["01", "02"]


def test_predictions_are_counted_on_the_new_bundle_too(
    device: Callable[..., Learner], bundles: Bundles, digits: Digits
) -> None:
    learner = device()
    learner.count()
    learner.predict(digits.of(3, 100, 104))
    folder, state = learner.bundle.folder, learner.state.folder
    learner.status()
    upgrade(folder, state, bundles.build("int8", precision="int8"))
    after = Learner.open(folder, state)
    assert after.status().days == ()
    after.predict(digits.of(3, 100, 103))
    days = after.status().days
    assert days is not None
    assert [day.answers for day in days] == [3]
    upgrade_back(folder, state)
    days = Learner.open(folder, state).status().days
    assert days is not None
    assert [day.answers for day in days] == [4]


def test_a_device_that_has_learned_nothing(bundles: Bundles, tmp_path: Path, digits: Digits) -> None:
    shutil.copytree(bundles.old, tmp_path / "bundle")
    new = bundles.build("batches", batch_size=8)
    report = upgrade(tmp_path / "bundle", tmp_path / "state", new)
    assert (report.generation, report.carried) == (0, ())
    learner = open_learner(tmp_path / "bundle", tmp_path / "state", **HEADS)
    assert learner.bundle.manifest.batch_size == 8
    learner.learn(digits.task("01", (4, 5)))
    upgrade_back(tmp_path / "bundle", tmp_path / "state")
    assert open_learner(tmp_path / "bundle", tmp_path / "state").tasks == ()


def judge(learner: Learner) -> dict[str, bytes]:
    place = learner.bundle.folder.parent
    files = (path for path in place.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def test_refusals_cost_nothing(
    device: Callable[..., Learner], bundles: Bundles, digits_bundle: Path, tmp_path: Path
) -> None:
    learner = device(**HEADS)
    before = judge(learner)
    bundle, state = learner.bundle.folder, learner.state.folder
    with pytest.raises(
        BundleError, match=r"which was not built to be upgraded to\. Build it with `--upgrade-from`"
    ):
        upgrade(bundle, state, digits_bundle)
    with pytest.raises(BundleError, match="is the bundle that is on this device already"):
        upgrade(bundle, state, bundle)
    with pytest.raises(StateError, match="There is no way back"):
        upgrade_back(bundle, state)
    damaged = Path(shutil.copytree(bundles.build("batches", batch_size=8), tmp_path / "damaged"))
    (damaged / UPGRADE).write_bytes(b"nothing")
    with pytest.raises(BundleError, match="is not the file that was built"):
        upgrade(bundle, state, damaged)
    new = bundles.build("batches", batch_size=8)
    with learner.state.lock(), pytest.raises(StateLockedError, match="is writing to"):
        upgrade(bundle, state, new)
    assert judge(learner) == before


def test_a_build_without_base_data_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--upgrade-from needs --base-data"):
        build_digits_bundle(tmp_path / "new", upgrade_from=bundles.old)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_exchange_is_finished_by_the_next_opening(
    device: Callable[..., Learner], bundles: Bundles, monkeypatch: pytest.MonkeyPatch, digits: Digits
) -> None:
    from csk_sdk.state import handover

    learner = device(**HEADS)
    bundle, state = learner.bundle.folder, learner.state.folder

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    new = bundles.build("batches", batch_size=8)
    monkeypatch.setattr(handover, "_put", cut)
    with pytest.raises(KeyboardInterrupt):
        upgrade(bundle, state, new)
    monkeypatch.undo()
    assert Places(bundle, state).journal.exists()
    assert verify(bundle, state).ok
    assert not Places(bundle, state).journal.exists()
    assert json.loads((bundle / "manifest.json").read_text())["batch_size"] == 8
    assert len(open_learner(bundle, state).tasks) == 2


def test_domains_are_of_the_network_that_they_were_learned_on(
    bundles: Bundles, tmp_path: Path, digits: Digits
) -> None:
    """Also where it stays what it was: whoever adapts again is sure of what was measured."""
    shutil.copytree(bundles.old, tmp_path / "bundle")
    learner = open_learner(tmp_path / "bundle", tmp_path / "state", **HEADS)
    images = digits.arrays((0, 1, 2, 3), 0, 40)[0] // 8 + 60
    learner.adapt("faint", images)
    same = bundles.build("batches", batch_size=8)
    assert not Upgrade.open(learner.bundle.folder, learner.state.folder, same).plan().exact
    after, report = upgraded(learner, same)
    assert report.notes == (
        "What was learned of the domains faint is left behind, since it is of the old network: adapt to them again.",
    )
    assert after.domains == ()
    after.adapt("faint", images)
    assert after.domains == ("faint",)
