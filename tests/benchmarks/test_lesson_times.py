"""docs/lesson-times.md is what its results say, and a ratio is of lessons of the same round."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

from benchmarks.continual.data import Split, Stream, TaskData

from benchmarks import lesson_data, lesson_javascript, lesson_times

RESULTS = REPOSITORY / "docs" / "results" / "lesson-times.json"


def test_the_page_is_written_from_the_results() -> None:
    page = lesson_times.page(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert (REPOSITORY / "docs" / "lesson-times.md").read_text(encoding="utf-8") == page, (
        "run: python benchmarks/lesson_times.py --sizes --write docs/lesson-times.md"
    )


def test_ratios_are_of_lessons_of_one_round() -> None:
    def rows(*cpu: float) -> list[dict[str, float]]:
        return [{"cpu": one, "wall": 1, "peak": 64, "task": 90, "all": 50, "base": 70} for one in cpu]

    # The second round was on a machine that was ten times slower, and tells the same.
    page = lesson_times.page(
        {
            "machine": "here",
            "sizes": {"5x20": {"heads": rows(1, 10, 3), "heads-before": rows(2, 20, 4)}},
        }
    )
    assert "| csk-sdk, heads on the frozen backbone | 3.00 | 1.00 | 64 | 90.0 | 50.0 | 70.0 |" in page
    assert "| csk-sdk, heads on the frozen backbone | heads, the build before | 0.50 |" in page
    assert "| torch, head only |" not in page


def test_what_lies_behind_the_steps_is_beside_pythons() -> None:
    def rows(*behind: float) -> list[dict[str, float]]:
        about = {"cpu": 9, "wall": 9, "peak": 64, "task": 90, "all": 50, "base": 70}
        return [{**about, "front": 1, "steps": 5, "behind": one} for one in behind]

    bare = [{key: value for key, value in row.items() if key != "behind"} for row in rows(1, 1, 1)]
    page = lesson_times.page(
        {
            "machine": "here",
            "sizes": {
                "5x100@224": {"centers": rows(2, 20, 2), "node-centers": rows(3, 30, 4), "torch-full": bare}
            },
        }
    )
    assert "## 5 classes of 100 images of 224x224" in page
    assert "random weights" in page
    assert "| csk-sdk in Node, centers | 1.00 | 5.00 | 4.00 | 1.50 |" in page
    assert "| csk-sdk, centers | 1.00 | 5.00 | 2.00 |  |" in page
    assert page.count("torch, full fine-tuning") == 2, "a row of the first table, and a ratio"


@pytest.mark.parametrize("text", ["5", "7x20", "5x0", "5x20@64", "5x20x4"])
def test_a_size_is_classes_and_images(text: str) -> None:
    with pytest.raises(ValueError, match="it must be 5 or 10 classes x images"):
        lesson_data.Size.of(text)


def test_a_size_may_be_of_large_images() -> None:
    assert lesson_data.Size.of("10x500") == lesson_data.Size(10, 500, 32)
    assert lesson_data.Size.of("5x20@224") == lesson_data.Size(5, 20, 224)


def test_images_are_scaled_up_with_their_labels(task: TaskData) -> None:
    large = lesson_data.scaled(task, 64)
    assert large.train.images.shape == (6, 64, 64, 3)
    np.testing.assert_array_equal(large.test.labels, task.test.labels)
    # Of the middle of an image of one colour, that colour.
    np.testing.assert_array_equal(large.train.images[:, 32, 32], task.train.images[:, 4, 4])


def test_javascript_is_given_what_python_learns(task: TaskData, tmp_path: Path) -> None:
    stream = Stream(task, (task,), domains=False)
    lesson_javascript._write(tmp_path, tmp_path / "bundle", {"few_shot": 0}, stream, task)
    tensors = load_file(tmp_path / "lesson.safetensors")
    np.testing.assert_array_equal(tensors["train/images"], task.train.images)
    np.testing.assert_array_equal(tensors["test/labels"], task.test.labels)
    np.testing.assert_array_equal(tensors["base/labels"], task.test.labels[::5])
    lesson = json.loads((tmp_path / "lesson.json").read_text())
    assert lesson["settings"] == {"few_shot": 0}
    assert lesson["classes"] == ["a", "b"]


@pytest.fixture
def task() -> TaskData:
    labels = np.arange(6) % 2
    images = np.broadcast_to(40 * labels[:, None, None, None] + np.arange(3), (6, 8, 8, 3)).astype(np.uint8)
    return TaskData("01", ("a", "b"), Split(images, labels), Split(images, labels))
