"""The continual-learning benchmark: its streams, its numbers, and that the page says what the runs said."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.continual import cold, page, product
from benchmarks.continual.corruptions import contrast, gaussian_blur, gaussian_noise
from benchmarks.continual.data import Split, Stream, TaskData, cut
from benchmarks.continual.results import forward_transfer, key, measures
from benchmarks.continual.tables import CLASS, TASK
from PIL import Image
from scipy import ndimage
from small_stream import NORMALIZE, small_model, small_stream

from conftest import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results" / "continual.json"
PAGE = REPOSITORY / "docs" / "results.md"
FACTS = {
    "classes": [f"old{i}" for i in range(4)],
    "later_classes_in_order": [f"new{i:02d}" for i in range(50)],
}


class Drawn:
    """Images whose every value is their class's number; ten of each for training, three for tests."""

    def split(self, split: str, classes: tuple[str, ...], count: int | None = None, seed: int = 0) -> Split:
        each = 10 if split == "train" else 3
        each = each if count is None else min(count, each)
        labels = np.repeat(np.arange(len(classes)), each)
        images = np.stack([np.full((8, 8, 3), int(classes[label][3:]), np.uint8) for label in labels])
        return Split(images, labels)


@pytest.mark.parametrize(
    ("protocol", "tasks", "classes", "pictures"),
    [("5x10", 5, 10, 100), ("10x5", 10, 5, 50), ("25x2", 25, 2, 20), ("10x5@4", 10, 5, 20)],
)
def test_streams_are_cut_in_the_given_order(protocol: str, tasks: int, classes: int, pictures: int) -> None:
    stream = cut(protocol, Drawn(), FACTS)  # type: ignore[arg-type]
    assert len(stream.tasks) == tasks
    assert [name for task in stream.tasks for name in task.classes] == FACTS["later_classes_in_order"]
    assert {len(task.classes) for task in stream.tasks} == {classes}
    assert {len(task.train.labels) for task in stream.tasks} == {pictures}
    assert stream.classes == (*FACTS["classes"], *FACTS["later_classes_in_order"])
    second = stream.tasks[1]
    assert stream.labels_in_all(second).tolist() == list(range(4 + classes, 4 + 2 * classes))
    # An image's value is its class's number, so labels and images still belong together.
    assert (second.test.images[:, 0, 0, 0] == classes + second.test.labels).all()


def test_domains_show_the_base_classes_again() -> None:
    stream = cut("domain@2", Drawn(), FACTS)  # type: ignore[arg-type]
    assert [task.name for task in stream.tasks] == ["gaussian noise", "gaussian blur", "contrast"]
    assert all(task.classes == stream.base.classes for task in stream.tasks)
    assert stream.classes == stream.base.classes
    assert stream.domains


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"protocol is '7x7'; it must be 5x10, 10x5, 25x2, 9x10, 18x5 or domain"
    ):
        cut("7x7", Drawn(), FACTS)  # type: ignore[arg-type]


def test_a_protocol_of_another_base_is_named() -> None:
    with pytest.raises(ValueError, match="protocol is '9x10@100', and 50 classes are left to be learned"):
        cut("9x10@100", Drawn(), FACTS)  # type: ignore[arg-type]


def test_the_cold_start_is_cut_in_the_order_of_the_field() -> None:
    names = [f"c{i:03d}" for i in range(100)]
    order = [names[i] for i in np.random.RandomState(1993).permutation(100)]
    facts = {"classes": order[:10], "later_classes_in_order": order[10:]}

    class Named(Drawn):
        def split(
            self, split: str, classes: tuple[str, ...], count: int | None = None, seed: int = 0
        ) -> Split:
            return super().split(split, tuple(f"new{name[1:]}" for name in classes), count, seed)

    stream = cut("9x10@2", Named(), facts)  # type: ignore[arg-type]
    assert [set(task.classes) for task in stream.tasks] == [
        set(order[i : i + 10]) for i in range(10, 100, 10)
    ]
    assert len(cut("18x5@2", Named(), facts).tasks) == 18  # type: ignore[arg-type]


def test_the_cold_starts_table_says_what_the_runs_said() -> None:
    scenarios = {
        TASK: {"acc": 70.04, "bwt": -1.0, "new": 71.0, "accuracy": [90.0]},
        CLASS: {"acc": 40.0, "bwt": -20.0, "new": 50.0, "accuracy": [90.0, 60.0, 45.0]},
    }
    run = {
        "protocol": "9x10@100", "method": "ours-auto", "title": "auto", "seed": 0, "scenarios": scenarios,
        "epochs_trained": [4, 0, 4], "cpu_seconds": [1.0, 2.0], "whole_seconds": 7,
        "measured_again": {"all_classes": 47.0, "acc": 71.0},
    }  # fmt: skip
    row = cold.cold([run]).splitlines()[-1]
    assert row == "| auto | 70.0 | -1.0 | 71.0 | 65.0 | 45.0 | 47.0 | -20.0 | 2.0 | 3.0 | 7.0 | 0 |"
    assert "| AdaGauss |  |  | 66.7 |" in cold.published()


def test_a_larger_network_has_a_table_of_its_own() -> None:
    run = next(one for one in page.load(RESULTS) if one["protocol"] == "9x10@500")
    text = page.render([run, {**run, "network": "ResNet-18"}], {})
    assert text.count("Nine tasks of ten classes, 500 images a class, seconds") == 1
    assert text.count("Nine tasks of ten classes, 500 images a class, ResNet-18, seconds") == 1
    assert key(run) != key({**run, "network": "ResNet-18"})


def test_the_table_of_choices_says_what_each_lesson_gains() -> None:
    def lived(method: str, new: float, everything: float, epochs: int) -> dict[str, Any]:
        scenarios = {
            TASK: {"accuracy_matrix": [[90.0], [88.0, new]]},
            CLASS: {"accuracy": [90.0, everything]},
        }
        gain = {"likelihood": 0.02, "done": 0.25, "sure": 3.04}
        return {
            "method": method, "seed": 1, "tasks": ["01"], "scenarios": scenarios, "gains": [gain],
            "epochs_trained": [epochs],
        }  # fmt: skip

    runs = [
        lived("ours-heads", 70.0, 60.0, 0),
        lived("ours-centers", 71.5, 59.0, 4),
        lived("ours-auto", 71.5, 59.0, 4),
    ]
    assert cold.choices(runs[:2]) == ""
    row = cold.choices(runs).splitlines()[-1]
    assert row == "| 1 | 01 | 70.0 | +1.5 | 60.0 | -1.0 | 0.080 | 3.0 | centers |"


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.4), (3, 0.7), (5, 1.0)])
def test_blur_is_scipys_gaussian_filter(severity: int, deviation: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    expected = ndimage.gaussian_filter(
        images / 255.0, (0, deviation, deviation, 0), mode="nearest", truncate=4.0
    )
    # Rounded down, and a value may lie on the edge.
    assert np.abs(gaussian_blur(images, rng, severity) - np.floor(expected * 255)).max() <= 1


def test_noise_and_contrast_change_what_they_should() -> None:
    rng = np.random.default_rng(0)
    gray = np.full((64, 16, 16, 3), 128, np.uint8)
    noisy = gaussian_noise(gray, rng, 3) / 255.0
    assert np.std(noisy) == pytest.approx(0.08, rel=0.02)
    assert np.mean(noisy) == pytest.approx(128 / 255 - 0.5 / 255, abs=0.001)
    ramp = np.broadcast_to(np.arange(0, 256, 16, dtype=np.uint8)[None, :, None, None], (1, 16, 16, 3))
    flat = contrast(ramp, rng, 3).astype(float)
    assert np.std(flat) == pytest.approx(0.4 * np.std(ramp), rel=0.01)
    assert np.mean(flat) == pytest.approx(np.mean(ramp), abs=1.0)


def test_measures_of_a_small_matrix() -> None:
    matrix = [[70.0], [60.0, 90.0], [65.0, 80.0, 50.0]]
    found = measures({"task, our head": matrix}, [100, 10, 10])["task, our head"]
    assert found["acc"] == pytest.approx((65 + 80 + 50) / 3, abs=1e-3)
    assert found["bwt"] == pytest.approx(((65 - 70) + (80 - 90)) / 2)
    assert found["forgetting"] == pytest.approx(((70 - 65) + (90 - 80)) / 2)
    assert found["new"] == pytest.approx((90 + 50) / 2)
    assert found["base"] == 65.0
    assert found["accuracy"] == [70.0, pytest.approx(6900 / 110, abs=1e-3), pytest.approx(7800 / 120)]


def test_forward_transfer_leaves_the_first_task_out() -> None:
    assert forward_transfer([50.0, 60.0, 70.0], [10.0, 58.0, 66.0]) == pytest.approx(3.0)


def a_run(method: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "protocol": "10x5@100", "method": method, "title": method, "by": "torch", "seed": seed, "fwt": None,
        "scenarios": measures(
            {TASK: [[70.0], [70.0, accuracy]], CLASS: [[70.0], [60.0, accuracy / 2]]}, [10, 10]
        ),
        "tasks": ["01"], "seconds": [1.0], "peak_rss_bytes": 2**20, "costs": None,
        "machine": {"processor": "x", "python": "3", "versions": {"numpy": "2"}},
    }  # fmt: skip


def test_merging_keeps_other_runs_and_replaces_its_own(tmp_path: Path) -> None:
    results, runs = tmp_path / "results.json", tmp_path / "runs" / "10x5@100"
    runs.mkdir(parents=True)
    for method, accuracy in (("ours", 80.0), ("gpm", 78.0)):
        (runs / f"{method}-0.json").write_text(json.dumps(a_run(method, 0, accuracy)))
    page.merge(tmp_path / "runs", results)
    (runs / "gpm-0.json").unlink()
    (runs / "ours-0.json").write_text(json.dumps(a_run("ours", 0, 90.0)))
    page.merge(tmp_path / "runs", results)
    known = {run["method"]: run["scenarios"][TASK]["new"] for run in page.load(results)}
    assert known == {"ours": 90.0, "gpm": 78.0}


def test_seeds_are_averaged_in_one_row() -> None:
    text = page.render([a_run("ours", 0, 80.0), a_run("ours", 1, 90.0)], {})
    row = next(line for line in text.splitlines() if line.startswith("| ours | 77.5 ±"))
    # ACC, BWT, forgetting, new, base: the mean over both seeds, and the standard deviation.
    cells = [cell.strip() for cell in row.split("|")[2:7]]
    assert cells == ["77.5 ± 3.5", "+0.0 ± 0.0", "0.0 ± 0.0", "85.0 ± 7.1", "70.0 ± 0.0"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The archive that the base's images are unpacked from, and the facts beside the model."""
    base = small_stream().base
    with zipfile.ZipFile(tmp_path / "cifar100-train.zip", "w") as archive:
        for number, (image, label) in enumerate(zip(base.train.images, base.train.labels, strict=True)):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            archive.writestr(f"{base.classes[label]}/{number}.png", content.getvalue())
    facts = {"classes": base.classes, "normalize": NORMALIZE}
    (tmp_path / "net.json").write_text(json.dumps(facts))
    return tmp_path


@pytest.mark.slow
def test_the_product_lives_a_stream(data: Path) -> None:
    cache = data / "cache"
    cache.mkdir()
    model = small_model(data)
    found = {
        name: product.run(name, small_stream(), model, data, cache, "small", 0, epochs=1)
        for name in ("ours", "ours-heads")
    }
    for name, run in found.items():
        assert run["tasks"] == ["01", "02"]
        assert set(run["scenarios"]) == {TASK, CLASS}
        assert len(run["scenarios"][TASK]["accuracy_matrix"]) == 3
        assert run["method"] == name
    assert found["ours"]["measured_again"] is None
    # An untouched network cannot forget, and the classes' patterns tell them apart.
    assert found["ours-heads"]["scenarios"][TASK]["bwt"] == 0.0
    assert found["ours"]["scenarios"][TASK]["new"] > 90.0
    assert not list(cache.glob("state-*"))


@pytest.mark.slow
def test_what_a_cold_stream_leaves_is_measured_again(data: Path) -> None:
    cache = data / "cache"
    cache.mkdir()
    run = product.run("ours-kernels", small_stream(), small_model(data), data, cache, "9x10", 0, epochs=1)
    again = run["measured_again"]
    assert again["acc"] == pytest.approx(run["scenarios"][TASK]["acc"], abs=5.0)
    assert again["all_classes"] == pytest.approx(run["scenarios"][CLASS]["accuracy"][-1], abs=10.0)
    costs = run["costs"]
    assert costs["forward_flops"] < costs["flops"]
    assert costs["step_bytes"] > costs["state_bytes"] > 0
    assert not list(cache.glob("again-*"))


def test_the_product_lives_domains(data: Path) -> None:
    cache = data / "cache"
    cache.mkdir()
    base = small_stream().base
    domain = TaskData("dark", base.classes, Split(base.train.images // 2, base.train.labels), base.test)
    run = product.run(
        "ours", Stream(base, (domain,), True), small_model(data), data, cache, "domain", 0, epochs=1
    )
    assert run["fwt"] is None
    assert len(run["scenarios"][CLASS]["accuracy_matrix"][-1]) == 2


def test_the_page_is_the_results() -> None:
    pictures = {}
    for name in page.protocols(page.load(RESULTS)):
        file = PAGE.parent / "images" / f"continual-{page.slug(name)}.png"
        if page.has_plot(name):
            assert file.exists()
            pictures[name] = f"images/{file.name}"
    fresh = page.render(page.load(RESULTS), pictures)
    assert PAGE.read_text(encoding="utf-8") == fresh, (
        "run: python -m benchmarks.continual page --write docs/results.md"
    )


def test_constants_on_the_page_are_the_codes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "noise of deviation 0.08" in text
    assert "severity 3 of" in text
    assert "SEVERITY" not in text
