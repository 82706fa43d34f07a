import json
import math

import numpy as np
import pytest

from csk_sdk.method.continual_metrics import AccuracyMatrix

# Worked by hand. Task 1 peaks after task 2; task 2 gains from task 3.
FULL = [
    [80.0, 10.0, 20.0],
    [90.0, 70.0, 30.0],
    [60.0, 75.0, 85.0],
]
TRIANGLE = [[80.0], [90.0, 70.0], [60.0, 75.0, 85.0]]


@pytest.mark.parametrize("rows", [FULL, TRIANGLE], ids=["full", "triangle"])
def test_measures_by_hand(rows):
    matrix = AccuracyMatrix(rows)
    assert matrix.acc == pytest.approx((60 + 75 + 85) / 3)
    assert matrix.bwt == pytest.approx(((60 - 80) + (75 - 70)) / 2)
    assert matrix.forgetting == pytest.approx(((90 - 60) + (70 - 75)) / 2)


def test_forward_transfer_by_hand():
    assert AccuracyMatrix(FULL).fwt([0.0, 4.0, 6.0]) == pytest.approx(((10 - 4) + (30 - 6)) / 2)
    assert math.isnan(AccuracyMatrix(TRIANGLE).fwt([0.0, 4.0, 6.0]))


def test_one_task_can_neither_forget_nor_transfer():
    matrix = AccuracyMatrix([[50.0]])
    assert matrix.acc == 50.0
    assert math.isnan(matrix.bwt)
    assert math.isnan(matrix.forgetting)
    assert math.isnan(matrix.fwt([1.0]))


def test_nothing_learned_measures_nothing():
    assert AccuracyMatrix([]).to_json() == {
        "accuracy_matrix": [],
        "acc": None,
        "bwt": None,
        "forgetting": None,
    }


def test_tasks_that_are_not_learned_yet_do_not_count():
    matrix = AccuracyMatrix([[80.0, 10.0, 5.0], [70.0, 90.0, 5.0]])
    assert matrix.acc == 80.0
    assert matrix.bwt == -10.0
    assert matrix.forgetting == 10.0
    assert matrix.fwt([0.0, 1.0, 2.0]) == pytest.approx(((10 - 1) + (5 - 2)) / 2)


def test_what_was_not_measured_is_left_out():
    matrix = AccuracyMatrix([[None, None, None], [40.0, 70.0, None], [60.0, 75.0, math.nan]])
    assert matrix.acc == pytest.approx(67.5)
    assert matrix.bwt == pytest.approx(5.0)  # task 0 has no R[0, 0]
    assert matrix.forgetting == pytest.approx(((40 - 60) + (70 - 75)) / 2)


def test_only_the_present_state_was_measured():
    matrix = AccuracyMatrix([[], [], [60.0, 70.0, 80.0]])
    assert matrix.acc == 70.0
    assert math.isnan(matrix.bwt)
    assert math.isnan(matrix.forgetting)


def test_json_has_none_for_nan_and_reads_back():
    matrix = AccuracyMatrix(TRIANGLE)
    text = json.dumps(matrix.to_json(), allow_nan=False)
    raw = json.loads(text)
    assert list(raw) == ["accuracy_matrix", "acc", "bwt", "forgetting"]
    assert raw["accuracy_matrix"] == [[80.0, None, None], [90.0, 70.0, None], [60.0, 75.0, 85.0]]
    assert raw["forgetting"] == pytest.approx(12.5)
    np.testing.assert_array_equal(AccuracyMatrix(raw["accuracy_matrix"]).values, matrix.values)


@pytest.mark.parametrize("wrong", [-0.1, 100.1, math.inf])
def test_accuracies_are_percent(wrong):
    with pytest.raises(ValueError, match="percent and must lie between 0 and 100"):
        AccuracyMatrix([[wrong]])
