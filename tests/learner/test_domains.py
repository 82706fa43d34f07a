"""A domain learned from images without labels: what is known is recognised in it, and nothing else changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_sdk import BundleError, Learner, Task, TaskError
from csk_sdk.method.projection import frozen_moment
from csk_sdk.network.domains import domain_tensors
from csk_sdk.workspace.verification import verify

Pixels = NDArray[np.uint8]
BASE = (0, 1, 2, 3)
SEEN, TESTED = (0, 40), (60, 120)


def faint(images: Pixels) -> Pixels:
    """A hazy camera: hardly any contrast left."""
    return (images * 0.12 + 60).astype(np.uint8)


def dark(images: Pixels) -> Pixels:
    return (images * 0.3).astype(np.uint8)


DOMAINS: dict[str, Callable[[Pixels], Pixels]] = {"faint": faint, "dark": dark}


def mixed(digits: Digits, classes: tuple[int, ...] = BASE) -> Pixels:
    """Images of several classes without their labels, in no order."""
    images, _ = digits.arrays(classes, *SEEN)
    return images[np.random.default_rng(0).permutation(len(images))]


def right(
    learner: Learner, digits: Digits, look: Callable[[Pixels], Pixels], classes: tuple[int, ...] = BASE
) -> float:
    images, labels = digits.arrays(classes, *TESTED)
    names = np.array([NAMES[digit] for digit in classes])
    return float(np.mean(np.array(learner.predict(look(images))[0]) == names[labels]))


def plain(images: Pixels) -> Pixels:
    return images


@pytest.mark.parametrize("name", DOMAINS)
def test_what_is_known_is_recognised_in_a_domain(learner: Learner, digits: Digits, name: str) -> None:
    look = DOMAINS[name]
    assert right(learner, digits, look) < 0.7
    report = learner.adapt(name, look(mixed(digits)))
    assert (report.domain, report.images, learner.domains) == (name, 160, (name,))
    assert report.told > 0.95
    assert report.distance is not None
    assert report.distance_before is not None
    assert report.distance < report.distance_before
    assert right(learner, digits, look) > 0.97
    assert right(learner, digits, plain) > 0.97


def test_several_domains_are_told_from_each_other(learner: Learner, digits: Digits) -> None:
    for name, look in DOMAINS.items():
        learner.adapt(name, look(mixed(digits)))
    images, labels = digits.arrays(BASE, *TESTED)
    looks = [plain, *DOMAINS.values()]
    # One batch in which every image is of another domain than the one before.
    batch = np.stack([looks[index % 3](image[None])[0] for index, image in enumerate(images)])
    names = np.array([NAMES[digit] for digit in BASE])
    said = learner.predict(batch)
    assert np.mean(np.array(said.labels) == names[labels]) > 0.97
    assert said.domains is not None
    told = np.array([domain or "none" for domain in said.domains])
    of = np.array(["none", *DOMAINS])[np.arange(len(batch)) % 3]
    assert np.mean(told == of) > 0.95


def test_what_is_learned_in_a_domain_is_known_everywhere(learner: Learner, digits: Digits) -> None:
    learner.adapt("faint", faint(mixed(digits)))
    images, labels = digits.arrays((4, 5), 0, 40)
    report = learner.learn(Task.from_arrays("01", faint(images), labels, ["four", "five"]))
    assert (report.heads_only, report.heads_only_because) == (True, "domains")
    assert any("domains are known" in warning for warning in report.warnings)
    for look in (faint, plain):
        assert right(learner, digits, look, (*BASE, 4, 5)) > 0.9


def test_a_stream_of_batches_has_heads_only_too(learner: Learner, digits: Digits) -> None:
    learner.adapt("faint", faint(mixed(digits)))
    images, labels = digits.arrays((4, 5), 0, 40)
    with learner.stream("01", ["four", "five"]) as stream:
        for start in range(0, len(labels), 16):
            stream.observe(images[start : start + 16], labels[start : start + 16])
    assert stream.report.heads_only_because == "domains"
    assert right(learner, digits, faint) > 0.95


def test_another_process_sees_the_same(learner: Learner, digits_bundle: Path, digits: Digits) -> None:
    learner.adapt("faint", faint(mixed(digits)))
    images = faint(digits.arrays(BASE, *TESTED)[0])
    again = open_learner(digits_bundle, learner.state.folder)
    assert again.domains == ("faint",)
    np.testing.assert_array_equal(again.predict(images)[1], learner.predict(images)[1])


def test_images_of_no_domain_are_seen_to_the_bit_as_before(learner: Learner, digits: Digits) -> None:
    images = digits.arrays(BASE, *TESTED)[0]
    before = learner.features(images)
    learner.adapt("faint", faint(mixed(digits)))
    np.testing.assert_array_equal(learner.features(images), before)
    shown = learner.features(faint(images))
    learner.forget_domain("faint")
    assert learner.domains == ()
    assert not domain_tensors(learner.generation.tensors)
    assert np.abs(learner.features(faint(images)) - shown).max() > 0.1


def test_a_second_domain_of_the_same_images_is_refused_where_some_are_not_told_to_be_of_the_first(
    learner: Learner, digits: Digits
) -> None:
    images = mixed(digits)
    images = np.concatenate([faint(images[:130]), images[130:]])
    learner.adapt("faint", images)
    assert 0.7 < np.mean(np.array(learner.predict(images).domains) == "faint") < 0.9
    with pytest.raises(TaskError, match="are no nearer to what is known than they are seen now"):
        learner.adapt("again", images)


def test_a_second_domain_of_the_same_look_is_refused(learner: Learner, digits: Digits) -> None:
    images = faint(mixed(digits))
    learner.adapt("faint", images[::2])
    with pytest.raises(TaskError, match="are no nearer to what is known than they are seen now"):
        learner.adapt("again", images[1::2])
    assert learner.domains == ("faint",)


def test_a_domain_is_replaced_when_that_is_said(learner: Learner, digits: Digits) -> None:
    learner.adapt("camera", faint(mixed(digits)))
    with pytest.raises(TaskError, match=r"^Domain 'camera' is known already\. Replace it with"):
        learner.adapt("camera", dark(mixed(digits)))
    learner.adapt("camera", dark(mixed(digits)), replace=True)
    assert learner.domains == ("camera",)
    assert right(learner, digits, dark) > 0.97
    assert right(learner, digits, faint) < 0.7


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_where_all_is_frozen_too_whole_images_are_seen(
    digits: Digits, tmp_path: Path, base_data: Path, place: str
) -> None:
    """Since an upgrade no site may be trained, and a domain is known since: no prefix features stand for images."""
    bundle = build_digits_bundle(
        tmp_path / "bundle", base_data=base_data, trainable="from:/stage2/first/conv/Conv"
    )
    learner = open_learner(bundle, tmp_path / "state", prefix_cache=place)
    assert learner.bundle.manifest.prefix
    learner.adapt("faint", faint(mixed(digits)))
    frozen = {
        f"moment/{site.name}": frozen_moment(site.groups, site.shape[1])
        for site in learner.bundle.manifest.sites
    }
    with learner.state.lock():
        learner.state.commit(1, (), {**learner.generation.tensors, **frozen})
    images, labels = digits.arrays((4, 5), 0, 40)
    report = learner.learn(Task.from_arrays("01", faint(images), labels, ["four", "five"]))
    assert report.heads_only_because == "domains"
    assert right(learner, digits, faint, (*BASE, 4, 5)) > 0.9


def test_rolling_back_goes_by_tasks(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5)))
    learner.adapt("faint", faint(mixed(digits)))
    learner.learn(digits.task("02", (6, 7)))
    learner.rollback("01")
    # In the newest generation that ends with this task, as with a class that was renamed meanwhile.
    assert ([task.name for task in learner.tasks], learner.domains) == (["01"], ("faint",))
    learner.rollback("base")
    assert learner.domains == ()


def test_what_repairing_leaves_of_domains_is_said(
    learner: Learner, digits: Digits, digits_bundle: Path
) -> None:
    """A power cut costs a generation: nobody is to find out by wrong answers that a domain went with it."""
    learner.learn(digits.task("01", (4, 5)))
    learner.adapt("faint", faint(mixed(digits)))
    learner.adapt("dark", dark(mixed(digits)))
    folder = learner.state.folder
    said = []
    for _ in range(2):
        os.truncate(folder / f"generations/{learner.state.head():06d}.safetensors", 50)
        found = {one.name: one.detail for one in verify(digits_bundle, folder, repair=True).state}
        said.append(found["HEAD"].partition(" is now current: ")[2])
    assert said == [
        "01; seen in 1 domain: faint.",
        "01. It knows no domain: `csk-sdk adapt` learns again those that the damaged one knew.",
    ]


def test_forgetting_everything_keeps_the_domains(learner: Learner, digits: Digits) -> None:
    learner.adapt("faint", faint(mixed(digits)))
    learner.learn(digits.task("01", (4, 5)))
    learner.forget(task="01")
    assert (learner.tasks, learner.domains) == ((), ("faint",))
    assert right(learner, digits, faint) > 0.97


def test_who_learned_the_backbone_keeps_it(learner: Learner, digits: Digits) -> None:
    """Centers that have moved are part of the network that a domain is of."""
    learner.learn(digits.task("01", (4, 5)), {"train": "centers", "few_shot": 0})
    moved = {key: value for key, value in learner.generation.tensors.items() if key.startswith("center/")}
    learner.adapt("faint", faint(mixed(digits, (*BASE, 4, 5))))
    for key, value in moved.items():
        np.testing.assert_array_equal(learner.generation.tensors[key], value)
    assert right(learner, digits, faint, (*BASE, 4, 5)) > 0.9


def refused(digits: Digits) -> dict[str, tuple[str, Pixels, str]]:
    images = mixed(digits)
    noise = np.random.default_rng(0).integers(0, 255, (80, 8, 8)).astype(np.uint8)
    return {
        "few": (
            "faint",
            faint(images[:31]),
            "Domain 'faint' was given 31 images, and takes at least 32",
        ),
        "alike": ("same", images, "look like those that are known already"),
        "noise": ("noise", noise, "are no nearer to what is known than they are seen now"),
        "a path for a name": ("a/b", faint(images), "A domain cannot be called 'a/b'"),
        "a name of nothing": ("", faint(images), "A domain cannot be called ''"),
        "the name of what is no domain": ("base", faint(images), "A domain cannot be called 'base'"),
    }


@pytest.mark.parametrize(
    "kind",
    ["few", "alike", "noise", "a path for a name", "a name of nothing", "the name of what is no domain"],
)
def test_what_cannot_be_adapted_to_is_refused(learner: Learner, digits: Digits, kind: str) -> None:
    name, images, sentence = refused(digits)[kind]
    with pytest.raises(TaskError) as caught:
        learner.adapt(name, images)
    assert sentence in str(caught.value)
    assert (learner.domains, learner.generation.number) == ((), 0)


@pytest.mark.parametrize("classes", [(1,), (7, 8)])
def test_images_of_one_class_or_of_other_things_are_asked_about(
    learner: Learner, digits: Digits, classes: tuple[int, ...]
) -> None:
    report = learner.adapt("faint", faint(digits.arrays(classes, 0, 60)[0]))
    assert report.unknown is not None
    assert report.unknown > 0.5
    assert "are unlike all that is known, also as the domain shows them" in report.warnings[0]


def test_a_domain_that_is_not_known_cannot_be_taken_back(learner: Learner) -> None:
    with pytest.raises(TaskError, match=r"^There is no domain 'night'\. Known: none\.$"):
        learner.forget_domain("night")


def test_a_bundle_without_base_data_has_no_domains(digits: Digits, tmp_path: Path) -> None:
    bare = open_learner(build_digits_bundle(tmp_path / "bundle"), tmp_path / "bare")
    with pytest.raises(BundleError, match="has no graphs for domains: build it again, with base data"):
        bare.adapt("faint", faint(mixed(digits)))


def test_a_state_with_domains_asks_for_who_sees_through_them(learner: Learner, digits: Digits) -> None:
    learner.adapt("faint", faint(mixed(digits)))
    record = learner.state.records()[-1]
    assert (record.needs.reader, record.needs.writer) == (3, 3)


def test_what_is_kept_for_a_fleet_is_seen_through_the_domain(
    learner: Learner, digits_bundle: Path, digits: Digits, tmp_path: Path
) -> None:
    """Of the untouched network, also where centers have moved; without, it lies four deviations off."""
    learner.learn(digits.task("01", (4, 5)), {"train": "centers", "few_shot": 0})
    learner.adapt("faint", faint(mixed(digits, (*BASE, 4, 5))))
    images, labels = digits.arrays((6, 7), 0, 40)
    learner.learn(Task.from_arrays("02", faint(images), labels, ["six", "seven"]))
    untouched = open_learner(digits_bundle, tmp_path / "untouched").features(images[labels == 0])
    kept = learner.state.contribution(learner.tasks[-1].contributions["six"])["mean"]
    off = (kept - untouched.mean(axis=0)) / (untouched.std(axis=0) + 1e-3 * untouched.std())
    assert np.sqrt(np.mean(off**2)) < 1.0
