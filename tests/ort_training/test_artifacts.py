"""The artifacts themselves: official, complete, used by a plain script, the same each time, refused when wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cli.conftest import csk_sdk
from conftest import REPOSITORY, Digits
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.ort import check as ort_check
from csk_artifacts_builder.ort import dialect as ort_dialect
from csk_artifacts_builder.ort.artifacts import forward_model
from csk_device_runners import check_bundle
from csk_sdk import Bundle, BundleError, ConfigError, CskError, Learner, ModelError, StorageError, TaskError
from csk_sdk.contract.manifest import UNUSED_CLASS, Head
from csk_sdk.method.projection import gather
from csk_sdk.runtime.sessions import import_training
from ort_training.ort_networks import SLICES, WRONG_THERE

FILES = ("training_model.onnx", "eval_model.onnx", "optimizer_model.onnx", "checkpoint")

# Nothing of csk-sdk. The first lines are what `onnxruntime.training` needs where there is no torch.
PLAIN = """
import sys, types, pathlib
import numpy as np
import onnxruntime
package = types.ModuleType("onnxruntime.training")
package.__path__ = [str(pathlib.Path(onnxruntime.__file__).parent / "training")]
sys.modules["onnxruntime.training"] = package
sys.modules.update(csk_sdk=None, csk_artifacts_builder=None, torch=None)
from onnxruntime.training import api

folder, channels, height, width = sys.argv[1], *map(int, sys.argv[2:])
state = api.CheckpointState.load_checkpoint(folder + "/checkpoint")
module = api.Module(folder + "/training_model.onnx", state, folder + "/eval_model.onnx")
optimizer = api.Optimizer(folder + "/optimizer_model.onnx", module)
rng = np.random.default_rng(0)
images = rng.normal(size=(8, channels, height, width)).astype(np.float32)
labels = rng.integers(0, 4, 8)
before = {name: parameter.data.copy() for name, parameter in state.parameters}
module.train()
for step in range(20):
    loss, logits = module(images, labels)
    print("step", float(loss), *logits.shape)
    optimizer.step()
    module.lazy_reset_grad()
module.eval()
print("eval", float(module(images, labels)[0]))
print("moved", *sorted(n for n, p in state.parameters if not np.array_equal(before[n], p.data)))
print("requires_grad", *sorted(n for n, p in state.parameters if p.requires_grad))
"""


def trainable(bundle: Bundle) -> list[str]:
    return sorted([*(site.center for site in bundle.manifest.sites), "head.weight", "head.bias"])


def test_a_plain_script_trains_centers_and_head_and_nothing_else(both: Path) -> None:
    bundle = Bundle.open(both)
    size = bundle.manifest.input
    shape = [str(number) for number in size.shape]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(both / "ort"), *shape], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    losses = [float(line[1]) for line in lines if line[0] == "step"]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]
    assert lines[0][2:] == ["8", "6"]  # six rows of the head
    found = {line[0]: line[1:] for line in lines}
    assert float(found["eval"][0]) < losses[0]
    assert found["requires_grad"] == trainable(bundle)
    assert found["moved"] == trainable(bundle)


def test_the_script_of_the_bundle_page(both: Path, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "bundle.md").read_text(encoding="utf-8")
    (code,) = re.findall(
        r"<!-- tested: ort-training -->\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    size = Bundle.open(both).manifest.input
    shape = (8, *size.shape)
    script = (
        "import sys\nsys.modules.update(csk_sdk=None, onnx=None, torch=None)\nimport numpy as np\n"
        f"images, labels = np.ones({shape}, np.float32), np.arange(8) % 4\n{code}"
        "print(loss, *gradient.shape, float(module(images, labels)[0]) < float(loss))\n"
    )
    (tmp_path / "bundle").symlink_to(both)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["6", str(Bundle.open(both).manifest.head.features), "True"]


def test_only_centers_and_head_have_gradients(both: Path) -> None:
    api = import_training("api")
    state = api.CheckpointState.load_checkpoint(str(both / "ort" / "checkpoint"))
    module = api.Module(str(both / "ort" / "training_model.onnx"), state)
    module.train()
    size = Bundle.open(both).manifest.input
    images = np.ones((2, *size.shape), np.float32)
    module(images, np.array([0, 1]))
    with_gradient = sorted(name for name, parameter in state.parameters if parameter.grad is not None)
    assert with_gradient == trainable(Bundle.open(both))
    frozen = {name for name, parameter in state.parameters if not parameter.requires_grad}
    # All kernels and large biases are in the checkpoint once, and not in the graphs again.
    assert {site.weight for site in Bundle.open(both).manifest.sites} <= frozen
    for name in ("training_model.onnx", "eval_model.onnx"):
        graph = onnx.load(str(both / "ort" / name)).graph
        assert max([int(np.prod(tensor.dims)) for tensor in graph.initializer], default=0) < 64


def test_rows_of_the_head_that_no_class_uses_get_exactly_nothing(both: Path) -> None:
    api = import_training("api")
    state = api.CheckpointState.load_checkpoint(str(both / "ort" / "checkpoint"))
    module = api.Module(str(both / "ort" / "training_model.onnx"), state)
    assert state.parameters["head.bias"].data[4:].tolist() == [np.float32(UNUSED_CLASS)] * 2
    size = Bundle.open(both).manifest.input
    images = np.random.default_rng(0).normal(size=(4, *size.shape))
    loss, _ = module(images.astype(np.float32), np.array([0, 1, 2, 3]))
    assert np.isfinite(loss)
    for name in ("head.weight", "head.bias"):
        gradient = state.parameters[name].grad
        assert not gradient[4:].any()
        assert gradient[:4].any()


def test_the_manifest_lists_the_artifacts_and_what_they_are(both: Path, ort_only: Path) -> None:
    manifest = Bundle.open(both).manifest
    assert {name for name in manifest.files if "/" in name} == {f"ort/{name}" for name in FILES}
    assert (manifest.backends, manifest.head_capacity) == (("portable", "ort-training"), 6)
    manifest = Bundle.open(ort_only).manifest
    assert (manifest.backends, manifest.head_capacity) == (("ort-training",), 128)
    assert "training_model.onnx" not in {*manifest.files, *manifest.kernels}
    assert "step_centers" not in manifest.costs
    assert manifest.costs["forward"] > 0


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_artifact_is_refused(both: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(both, tmp_path / "copy"))
    content = bytearray((copy / "ort" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "ort" / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"is not the file that was built.*Copy the bundle again\."):
        Bundle.open(copy)
    (copy / "ort" / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(copy)


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """In processes of their own: the package numbers its names on and on within one."""
    first, second = (
        build_alone(tmp_path / name, "--json", PYTHONHASHSEED=name) and tmp_path / name for name in ("1", "2")
    )
    for file in (path for path in first.rglob("*") if path.is_file()):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes(), file.name


def build_alone(out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`csk-sdk build-artifacts` of the digits model for both backends."""
    model = Path(__file__).parents[2] / "examples" / "digits" / "digits-base4.onnx"
    return subprocess.run(
        [sys.executable, "-m", "csk_sdk", "build-artifacts", str(model), "--out", str(out),
         "--classes", str(model.with_suffix(".json")), "--backend", "both", *options],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip


# --- refusals


def refused(folder: Path, network: Any, error: type[CskError] = ModelError, **options: Any) -> str:
    """The sentence; nothing is left behind."""
    onnx.save(network.proto(), folder / "model.onnx")
    with pytest.raises(error) as caught:
        build_artifacts(
            folder / "model.onnx", folder / "out" / "b", BuildOptions(**{"backend": "both", **options})
        )
    assert not (folder / "out").exists() or list((folder / "out").iterdir()) == []
    return str(caught.value)


INSTEAD = "Build it with --backend portable, or train only later layers with --trainable from:NODE."


@pytest.mark.parametrize("op", ["InstanceNormalization", "ConvTranspose"])
def test_an_op_without_a_gradient_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    import networks

    monkeypatch.delitem(ort_dialect.REWRITES, op)
    said = refused(tmp_path, networks.SHUFFLE, trainable="all")
    assert f"onnxruntime-training cannot train model.onnx (it has no gradient for op '{op}' (node '" in said
    assert said.endswith(INSTEAD)


@pytest.mark.parametrize("backend", ["both", "ort-training"])
@pytest.mark.parametrize("op", WRONG_THERE)
def test_a_gradient_that_is_wrong_there_is_refused_by_site_and_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str, backend: str
) -> None:
    """Losses and logits are right; only the comparison of a step's gradients can tell."""
    monkeypatch.delitem(ort_dialect.REWRITES, op)
    said = refused(tmp_path, WRONG_THERE[op], trainable="all", backend=backend)
    assert re.match(
        r"onnxruntime-training cannot train model\.onnx \(its gradient of the site '[^']+' is off by [\d.e+]+ times "
        rf"its norm, because that of op '{op}' \(node 'culprit'\) is wrong\)\. ",
        said,
    ), said
    assert said.endswith(INSTEAD)


def test_a_bundle_that_was_there_stays_when_its_successor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(WRONG_THERE["Split"].proto(), tmp_path / "model.onnx")
    options = BuildOptions(backend="both", trainable="all", overwrite=True)
    build_artifacts(tmp_path / "model.onnx", tmp_path / "b", options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.delitem(ort_dialect.REWRITES, "Split")
    with pytest.raises(ModelError, match="its gradient of the site"):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "b", options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_gradient_that_is_wrong_for_no_single_node_is_refused_by_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slices are each right alone; together the package makes a Split of them."""
    monkeypatch.delitem(ort_dialect.REWRITES, "Slice")
    said = refused(tmp_path, SLICES, trainable="all")
    assert re.search(r"\(its gradient of the site 'two' is off by [\d.e+]+ times its norm\)\. Build", said), (
        said
    )


def test_a_gradient_of_nothing_but_rounding_is_not_wrong(both: Path) -> None:
    manifest = Bundle.open(both).manifest
    head, sites = manifest.head, manifest.sites[:2]
    rng, shapes = np.random.default_rng(0), {"weight": (4, head.features), "bias": (4,)}
    ours = {name: rng.normal(size=shapes[name]) for name in shapes}
    right = {head.weight_gradient: ours["weight"], head.bias_gradient: ours["bias"]}
    theirs = {head.weight: ours["weight"], head.bias: ours["bias"]}
    for site, size, noise in zip(sites, (1.0, 1e-7), (1e-6, 1e-7), strict=True):
        center = size * rng.normal(size=(*site.shape[:2], 1, 1))
        right[site.gradient] = gather(center, np.arange(site.columns), site.groups)
        theirs[site.center] = center + noise * rng.normal(size=center.shape)
    assert ort_check._differences(right, theirs, sites, head, 4) == {}
    theirs[sites[1].center] *= 100
    assert list(ort_check._differences(right, theirs, sites, head, 4)) == [sites[1].name]


def test_a_wrong_gradient_of_the_head_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import networks

    run = ort_check._OrtStep.run

    def doubled(self: Any, *arguments: Any) -> Any:
        logits, gradients = run(self, *arguments)
        return logits, gradients | {"head.weight": 2 * gradients["head.weight"]}

    monkeypatch.setattr(ort_check._OrtStep, "run", doubled)
    said = refused(tmp_path, networks.VGG)
    assert re.search(r"\(its gradient of the head is off by 0\.\d+ times its norm\)", said), said


def test_gradients_that_nothing_can_be_compared_with_are_warned_of(tmp_path: Path) -> None:
    """Of an op that the package has a gradient for, and the portable rules do not."""
    network = replace(WRONG_THERE["Split"], nodes=WRONG_THERE["Split"].nodes.replace("Relu(b)", "Sin(b)"))
    onnx.save(network.proto(), tmp_path / "model.onnx")
    options = BuildOptions(backend="ort-training", trainable="all")
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "b", options)
    (said,) = [warning for warning in report.warnings if "could not be compared" in warning]
    assert said.startswith(
        "The gradients of onnxruntime-training could not be compared with others: no gradient rule for 'Sin' (node "
    )
    assert Bundle.open(tmp_path / "b").manifest.backends == ("ort-training",)


def test_batch_norm_that_is_not_folded_is_refused(tmp_path: Path) -> None:
    """1.19.2 would silently use the statistics of the batch."""
    import networks

    from csk_artifacts_builder.prepare.model import prepare
    from csk_artifacts_builder.sites import find_sites

    onnx.save(networks.RESNET.proto(), tmp_path / "model.onnx")
    model = prepare(tmp_path / "model.onnx").model
    next(node for node in model.graph if node.op_type == "Relu").op_type = "BatchNormalization"
    with pytest.raises(
        ModelError, match=r"batch statistics in '.+', a BatchNormalization that could not be folded"
    ):
        forward_model(model, find_sites(model, "m"), Head(features=6), 8, "m")


def test_a_training_graph_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import networks

    from csk_artifacts_builder.ort import artifacts as ort_training

    made = ort_training.forward_model

    def other(*arguments: Any) -> Any:
        model = made(*arguments)
        weight = model.graph.initializers["head.weight"]
        weight.const_value = ort_training.ir.tensor(weight.const_value.numpy() + 1, name="head.weight")
        return model

    monkeypatch.setattr(ort_training, "forward_model", other)
    assert "its training graph gives outputs that differ by" in refused(tmp_path, networks.VGG)


def test_a_disk_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import networks

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_training("artifacts"), "generate_artifacts", full)
    said = refused(tmp_path, networks.VGG, StorageError)
    assert said.endswith("(No space left on device). Nothing was left behind.")


@pytest.mark.parametrize(("capacity", "least"), [(2, 3), (0, 3), (-1, 3)])
def test_a_head_too_small_for_the_base_is_refused(tmp_path: Path, capacity: int, least: int) -> None:
    import networks

    said = refused(tmp_path, networks.VGG, ConfigError, head_capacity=capacity)
    assert said == f"--head-capacity is {capacity}; it must be {least} or more, room for the base classes."


def test_a_task_with_more_classes_than_the_head_has_room_for(
    both: Path, tmp_path: Path, digits: Digits
) -> None:
    task = digits.task("seven", tuple(range(3, 10)))
    learner = Learner.open(both, tmp_path / "state", backend="ort-training")
    said = (
        f"Task 'seven' has 7 classes, and the ort-training artifacts of {both} have room for 6. Learn it with "
        "--backend portable, or build the bundle again with --head-capacity 7."
    )
    with pytest.raises(TaskError) as caught:
        learner.learn(task)
    assert str(caught.value) == said
    with pytest.raises(TaskError) as caught:
        learner.stream("seven", task.classes)
    assert str(caught.value) == said
    assert not (tmp_path / "state" / "HEAD").exists()
    Learner.open(both, tmp_path / "state").learn(task)  # the portable backend has no such limit


def test_the_device_check_needs_the_portable_graphs(ort_only: Path, both: Path) -> None:
    with pytest.raises(BundleError, match=r"no portable training graph to check.*--backend portable or both"):
        check_bundle(ort_only)
    assert all(result.passed for result in check_bundle(both))


# --- the command line


def test_commands(ort_only: Path, tmp_path: Path, digits: Digits) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "tasks").mkdir(parents=True)
    (workspace / "bundle").symlink_to(ort_only)
    digits.save(digits.task("01", (4, 5)), workspace / "tasks")
    at = ["--workspace", workspace, "--json"]
    checks = {check["name"]: check for check in csk_sdk("doctor", *at).json["checks"]}
    assert checks["Graphs"]["status"] == checks["Training step"]["status"] == "ok"
    assert "ort/training_model.onnx" in checks["Graphs"]["detail"]
    assert csk_sdk("inspect", ort_only, "--json").json["backends"] == ["ort-training"]
    assert "ort-training for tasks of up to 128 classes" in " ".join(csk_sdk("inspect", ort_only).out.split())
    wrong = csk_sdk("train", "--backend", "portable", *at)
    assert (wrong.status, wrong.out) == (1, "")
    assert "was built for the ort-training backend only. Learn with --backend ort-training" in wrong.err
    done = csk_sdk("train", "--backend", "ort-training", *at)
    assert done.status == 0, done.err
    assert json.loads(done.out)["accuracy"]["class"]["01"] > 80.0


def test_building_on_the_command_line_is_quiet(tmp_path: Path) -> None:
    """The package logs every pass of its optimizer to stderr, from C++, in any process."""
    done = build_alone(tmp_path / "b", "--head-capacity", "9", "--json")
    assert json.loads(done.stdout)["backends"] == ["portable", "ort-training"]
    assert "onnxruntime:" not in done.stderr
    assert "[I:" not in done.stderr
