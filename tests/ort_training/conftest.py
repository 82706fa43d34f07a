"""These tests need onnxruntime-training, which cannot be installed beside onnxruntime: `make test` runs them in an
environment of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, Digits, build_digits_bundle, write_pictures
from csk_sdk.errors import RuntimeMissingError
from csk_sdk.runtime.sessions import require_training_package

# Networks, ONNX text and rows of gradients that the builder's tests share.
for folder in ("tests/builder", "tests/builder/gradients"):
    sys.path.append(str(REPOSITORY / folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        require_training_package()
    except RuntimeMissingError:
        skip = pytest.mark.skip(reason="onnxruntime-training is not installed: run `make test-ort-training`")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """The digits bundle, protected, for both backends, with room for six classes a task. Read only."""
    folder = tmp_path_factory.mktemp("both")
    base = write_pictures(folder / "base", digits, (0, 1, 2, 3), 0, 40)
    return build_digits_bundle(folder / "bundle", base_data=base, backend="both", head_capacity=6)


@pytest.fixture(scope="session")
def ort_only(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """The same for ort-training only."""
    folder = tmp_path_factory.mktemp("ort-only")
    base = write_pictures(folder / "base", digits, (0, 1, 2, 3), 0, 40)
    return build_digits_bundle(folder / "bundle", base_data=base, backend="ort-training")
