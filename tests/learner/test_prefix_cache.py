"""Features of the frozen stem, kept: the same learning, whatever the place, to the bit."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import csk_sdk.learning.prefix_cache as prefix_cache
from conftest import Digits, build_digits_bundle, open_learner
from csk_sdk import Learner, TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.errors import ConfigError
from csk_sdk.learning.learn_run import Progress
from csk_sdk.learning.prefix_cache import PrefixCache, choose_place, feature_bytes


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory, base_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    return build_digits_bundle(folder, base_data=base_data, precision="int8", features="last")


@pytest.fixture(params=["exact", "int8"])
def bundle(request: pytest.FixtureRequest, digits_bundle: Path, int8_bundle: Path) -> Path:
    return {"exact": digits_bundle, "int8": int8_bundle}[request.param]


def learned(bundle: Path, state: Path, digits: Digits, **settings: Any) -> Learner:
    learner = open_learner(bundle, state, epochs=3, **settings)
    learner.learn(digits.task("01", (4, 5, 6)))
    return learner


def tensors(learner: Learner) -> dict[str, np.ndarray]:
    return dict(learner.state.load().tensors)


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def accuracy(learner: Learner, digits: Digits) -> float:
    images, labels = digits.arrays((4, 5, 6), 100, 170)
    names = np.array(["four", "five", "six"])
    return 100 * float(np.mean(learner.predict(images, "01").labels == names[labels]))


@pytest.mark.slow
def test_memory_and_disk_learn_the_same_to_the_bit(bundle: Path, tmp_path: Path, digits: Digits) -> None:
    memory = learned(bundle, tmp_path / "a", digits, prefix_cache="memory")
    disk = learned(bundle, tmp_path / "b", digits, prefix_cache="disk")
    assert_same(tensors(memory), tensors(disk))


@pytest.mark.slow
def test_it_learns_as_well_as_without(bundle: Path, tmp_path: Path, digits: Digits) -> None:
    without = learned(bundle, tmp_path / "a", digits)
    cached = learned(bundle, tmp_path / "b", digits, prefix_cache="memory")
    assert any(not np.array_equal(tensors(without)[name], value) for name, value in tensors(cached).items())
    assert abs(accuracy(cached, digits) - accuracy(without, digits)) <= 2.5
    assert accuracy(cached, digits) > 90


@pytest.mark.slow
def test_one_view_and_no_augmentation_is_the_same_learning(
    bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    """Then nothing differs but rounding, to float16 or uint8."""
    plain = {"shift": 0, "flip": False}
    without = tensors(learned(bundle, tmp_path / "a", digits, **plain))
    cached = tensors(learned(bundle, tmp_path / "b", digits, prefix_cache="memory", prefix_views=1, **plain))
    start = Bundle.open(bundle).checkpoint()
    for name in (name for name in start if name.startswith("center/")):
        a, b = without[name] - start[name], cached[name] - start[name]
        assert np.linalg.norm(a) > 0
        assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a), name


Fill = Callable[..., PrefixCache]


@pytest.fixture
def filled(bundle: Path, digits: Digits, tmp_path: Path) -> Iterator[Fill]:
    """Caches of 45 digits, closed at the end."""
    with ExitStack() as stack:
        yield lambda place="memory", views=4: stack.enter_context(
            _filled(bundle, digits, place, tmp_path, views)
        )


def _filled(bundle: Path, digits: Digits, place: str, folder: Path, views: int) -> PrefixCache:
    opened = Bundle.open(bundle)
    task = digits.task("01", (4, 5, 6), train=15)
    assert task.train is not None
    config = TrainingConfig(threads=1, shift=1, flip=True, prefix_views=views, prefix_cache=place)
    pixels = PixelCache(task.train, opened.preprocessing)
    made = PrefixCache(opened, opened.checkpoint(), pixels, config, folder)
    made.fill(16)
    return made


ORDER = np.random.default_rng(3).permutation(45)


def everything(cache: PrefixCache) -> np.ndarray:
    """What any pass can see."""
    parts = [features for features, _ in (*cache.plain(7, ORDER), *cache.mirrored(7, ORDER))]
    return np.concatenate([*parts, *(cache.training(ORDER, epoch) for epoch in range(5))])


def test_views_are_the_picture_the_mirrored_picture_and_moved_ones(filled: Fill, digits: Digits) -> None:
    cache = filled()
    opened = cache._bundle
    graph = opened.graph(prefix_cache.PREFIX_MODEL, opened.checkpoint(), 1)
    pictures = np.concatenate([digits.of(digit, 0, 15) for digit in (4, 5, 6)])

    def features(images: np.ndarray) -> np.ndarray:
        return graph.run({"image": opened.preprocessing(images)})["prefix"]

    identity = np.arange(45)
    ((plain, labels),) = cache.plain(45, identity)
    ((mirrored, _),) = cache.mirrored(45, identity)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(3), 15))
    np.testing.assert_array_equal(plain, features(pictures))
    np.testing.assert_array_equal(mirrored, features(pictures[:, :, ::-1]))
    seen = np.stack([cache.training(identity, epoch) for epoch in range(4)], axis=1)
    for picture in range(45):
        # In four epochs each of the four views once, from a random one on.
        assert sum(np.array_equal(view, plain[picture]) for view in seen[picture]) >= 1
        assert sum(np.array_equal(view, mirrored[picture]) for view in seen[picture]) >= 1
    firsts = {next(i for i in range(4) if np.array_equal(seen[p, i], plain[p])) for p in range(45)}
    assert firsts == {0, 1, 2, 3}
    np.testing.assert_array_equal(cache.training(identity, 4), seen[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 1, 7, 44])
def test_what_does_not_fit_is_computed_again_and_is_the_same(
    bundle: Path, filled: Fill, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    whole = everything(filled())
    monkeypatch.setattr(prefix_cache, "MEMORY_BYTES", room * 4 * feature_bytes(Bundle.open(bundle)) + 3)
    part = filled()
    assert part.kept == room
    np.testing.assert_array_equal(everything(part), whole)


def test_one_view_mirrors_when_it_is_asked(filled: Fill) -> None:
    one, four = (filled("memory", views) for views in (1, 4))
    for (a, _), (b, _) in zip(one.mirrored(16, ORDER), four.mirrored(16, ORDER), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_disk_that_fills_up_is_as_good_as_a_small_one(
    filled: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = everything(filled())
    real, calls = prefix_cache._OnDisk.write, []

    class Full:
        """A file that takes one block and no more."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: memoryview) -> int:
            if calls:
                raise OSError(errno.ENOSPC, "No space left on device")
            calls.append(len(data))
            return self._file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    def write(store: Any, start: int, rows: np.ndarray) -> bool:
        if not isinstance(store._file, Full):
            store._file = Full(store._file)
        return real(store, start, rows)

    monkeypatch.setattr(prefix_cache._OnDisk, "write", write)
    part = filled("disk")
    assert part.kept == 16
    np.testing.assert_array_equal(everything(part), whole)


def test_nothing_is_left_on_the_disk_not_even_while_learning(
    bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    """So a power cut leaves nothing either: the file never has a name."""
    learner = open_learner(bundle, tmp_path / "state", epochs=2, prefix_cache="disk")
    named: set[str] = set()
    opened: set[int] = set()

    def look(now: Progress) -> None:
        if now.phase == "train":
            named.update(path.name for path in (tmp_path / "state").rglob("*"))
            opened.update(
                fd.stat().st_size for fd in Path("/proc/self/fd").iterdir() if "(deleted)" in _target(fd)
            )

    learner.learn(digits.task("01", (4, 5)), on_progress=look)
    assert named <= {"lock", "progress.safetensors", "state.json", "generations", "scores"}
    if Path("/proc/self/fd").exists():
        assert 80 * learner.config.prefix_views * feature_bytes(learner.bundle) in opened


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_bit(bundle: Path, tmp_path: Path, digits: Digits) -> None:
    settings = {"epochs": 3, "prefix_cache": "memory", "checkpoint_seconds": 0.0}
    whole = open_learner(bundle, tmp_path / "whole", **settings)
    whole.learn(digits.task("01", (4, 5)))
    cut = open_learner(bundle, tmp_path / "cut", **settings)

    def stop(now: Progress) -> None:
        if now.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.learn(digits.task("01", (4, 5)), on_progress=stop)
    report = open_learner(bundle, tmp_path / "cut", **settings).learn(digits.task("01", (4, 5)))
    assert report.resumed_at_step in (6, 7)
    assert_same(tensors(whole), tensors(cut))


def test_auto_keeps_what_fits_into_memory(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle)
    monkeypatch.setattr(prefix_cache, "MEMORY_BYTES", 100 * feature_bytes(opened))

    def place(wanted: str, pictures: int, backend: str = "portable") -> str:
        return choose_place(TrainingConfig(prefix_cache=wanted, prefix_views=4), opened, pictures, backend)

    assert place("auto", 25) == "memory"
    assert place("auto", 26) == "off"
    assert place("disk", 26) == "disk"
    assert place("off", 1) == "off"
    assert place("memory", 1, backend="ort-training") == "off"


def test_where_the_first_layer_is_trained_nothing_is_kept(
    tmp_path: Path, base_data: Path, digits: Digits
) -> None:
    folder = build_digits_bundle(tmp_path / "bundle", base_data=base_data, trainable="all")
    opened = Bundle.open(folder)
    assert opened.manifest.prefix == ()
    assert not any("prefix" in name or "suffix" in name for name in opened.manifest.files)
    assert choose_place(TrainingConfig(prefix_cache="memory"), opened, 10) == "off"
    cached, without = (
        learned(folder, tmp_path / place, digits, prefix_cache=place) for place in ("memory", "off")
    )
    assert_same(tensors(cached), tensors(without))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"prefix_cache": "flash"}, "prefix_cache is 'flash'; it must be off, memory, disk or auto."),
        ({"prefix_views": 0}, "prefix_views is 0; it must be a whole number from 1 to 64."),
        ({"precision": "half"}, "precision is 'half'; it must be auto, exact or int8."),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainingConfig(**settings)
    assert str(error.value) == text
