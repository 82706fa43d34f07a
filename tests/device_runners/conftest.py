"""What several of these tests share: the digits workspace of the conformance run."""

import importlib.util
from pathlib import Path

import pytest

from csk_device_runners.digits import TASKS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "digits"
    path = REPOSITORY / "tests" / "conformance" / "digits.py"
    spec = importlib.util.spec_from_file_location("conformance_digits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder)
    assert tuple(module.TASKS) == TASKS
    return folder
