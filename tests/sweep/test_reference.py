"""The reference is held against numbers of the ONNX project, and every op with a rule is drawn, reproducibly."""

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from drawing import drawn  # noqa: E402
from kinds import KINDS  # noqa: E402
from node_vectors import around, node_vectors  # noqa: E402
from reference import OPS, as_tensor, evaluate  # noqa: E402

from csk_artifacts_builder.gradients import registry  # noqa: E402


@pytest.fixture(scope="module")
def vectors():
    return list(node_vectors())


def test_the_reference_gives_what_the_onnx_project_says(vectors):
    wrong = []
    for vector in vectors:
        feeds = {name: as_tensor(value) for name, value in vector.inputs.items()}
        got = evaluate(vector.model, feeds)[vector.model.graph.output[0].name].numpy()
        scale = max(1.0, np.abs(vector.output).max(initial=0.0))
        if (
            got.shape != vector.output.shape
            or not np.abs(got - vector.output).max(initial=0.0) <= 1e-4 * scale
        ):
            wrong.append(vector.name)
    assert wrong == []
    assert len(vectors) > 300


def test_every_op_with_a_rule_is_drawn_and_known_to_the_reference():
    assert set(registry.registered_ops()) - set(KINDS) == set()
    assert set(KINDS) - set(OPS) == set()


def test_the_same_number_draws_the_same_networks():
    one, other = ([one.model.SerializeToString() for one in drawn(120)] for _ in range(2))
    assert one == other
    assert len(set(one)) == 120


def test_many_vectors_fit_into_a_network(vectors):
    assert sum(around(vector) is not None for vector in vectors) > 150
