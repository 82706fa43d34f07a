"""Fleets for the JavaScript runner: what Python's devices exported, merged, applied and refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from csk_sdk import FleetError, Learner, Task, TrainingConfig, fleet
from csk_sdk.bundle.folder import Bundle
from csk_sdk.demo import digits
from csk_sdk.fleet.applying import _read
from csk_sdk.fleet.files import FleetFile
from field.fuzz_targets import each_value_changed

PEM = serialization.Encoding.PEM
# Messages call a file so in both languages.
CALLED = "The file"
Say = Callable[[dict[str, Any]], Any]


def write_fleet(out: Path, bundle: Path, tasks: Path, data: digits.Digits, settings: TrainingConfig) -> None:
    """What a fleet of four devices comes to, of which `kitchen` is looked at, in `out`.

    `state/` and `told.json`: a device that has applied what the fleet knows, and what is known when something is
    forgotten. `exported/KIND/`: a device's state that has exported `file.cskc`, with the options in `exported.json`.
    `merged/`, `kitchen/`, `renamed/`, `taught/`, `trained/`: merged files, and states before they are applied.
    `applied/KIND/`: states after that, with `applied.json`. `refused.json`: files that are refused, and in which
    sentence. `device.pem`, `operator.pem`, `stranger.pem`: private keys, `*.pub.pem` the public ones.
    """
    out.mkdir()
    for name in ("device", "operator", "stranger"):
        _write_key(out, name)
    frozen = settings.with_overrides(few_shot=10**6)
    folder = out / "made"
    names = dict(zip(("kitchen", "hall", "yard"), digits.TASKS, strict=True))
    for name, task in names.items():
        learner = Learner.open(bundle, folder / name, frozen)
        learner.learn(Task.from_folder(tasks / task))
    trained = Learner.open(bundle, folder / "trained", settings)
    trained.learn(Task.from_folder(tasks / names["hall"]))
    for name in ("kitchen", "trained"):
        shutil.copytree(folder / name, out / name)
    shutil.copytree(folder / "kitchen", out / "renamed")
    Learner.open(bundle, out / "renamed", frozen).rename("four", "vier")
    _write_exported(out, bundle, frozen)
    for name in names:
        fleet.export(Learner.open(bundle, folder / name, frozen), folder / f"{name}.cskc")
    _write_merged(
        out, [folder / f"{name}.cskc" for name in names], list(_of_one_class(bundle, folder, frozen, data))
    )
    shutil.copytree(folder / "quarter-0", out / "taught")
    Learner.open(bundle, out / "taught", frozen).rename("four", "vier")
    _write_applied(out, bundle, frozen, data)
    _write_forgotten(out, bundle, frozen, folder, data)
    shutil.rmtree(folder)
    _write_refused(out, Bundle.open(bundle))


def _write_key(out: Path, name: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    (out / f"{name}.pem").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (out / f"{name}.pub.pem").write_bytes(public)


def _of_one_class(
    bundle: Path, folder: Path, settings: TrainingConfig, data: digits.Digits
) -> Iterator[Path]:
    """Files of four devices that have learned other images of the same classes, of which the last exchanges names."""
    for number in range(4):
        chosen = [np.flatnonzero(data.train_labels == digit)[number::4] for digit in (4, 6, 8)]
        labels = np.repeat([0, 1, 2], [len(one) for one in chosen])
        classes = ["four", "six", "eight"] if number < 3 else ["eight", "four", "six"]
        images = data.train_images[np.concatenate(chosen)][..., None]
        learner = Learner.open(bundle, folder / f"quarter-{number}", settings)
        learner.learn(Task.from_arrays("quarter", images, labels, classes))
        fleet.export(learner, folder / f"quarter-{number}.cskc")
        yield folder / f"quarter-{number}.cskc"


def _write_exported(out: Path, bundle: Path, settings: TrainingConfig) -> None:
    told = {}
    for kind, first, options in (
        ("plain", (), {}),
        ("few-bits", (), {"bits": 4}),
        ("signed", (), {"sign": "device.pem"}),
        ("least", ("least",), {"least": 15}),
        ("withdrawn", ("export", "forget"), {"name": "Küche \U0001f373"}),
        ("again", ("export", "again"), {}),
        ("merged", ("merge",), {}),
    ):
        state = out / "exported" / kind / "state"
        shutil.copytree(out / "kitchen", state)
        learner = Learner.open(bundle, state, settings)
        _prepare(learner, first, out)
        path = out / "exported" / kind / "file.cskc"
        given = {"name": "kitchen", **options}
        sign = out / str(given["sign"]) if "sign" in given else None
        report = fleet.export(learner, path, **{**given, "sign": sign})
        told[kind] = {"options": given, "report": asdict(report)}
    (out / "exported.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def _prepare(learner: Learner, first: tuple[str, ...], out: Path) -> None:
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (36, 8, 8, 1)).astype(np.uint8)
    for one in first:
        if one == "export":
            fleet.export(learner, out / "exported" / "before.cskc", name="kitchen")
            (out / "exported" / "before.cskc").unlink()
        elif one == "forget":
            learner.forget("five")
        elif one == "merge":
            learner.merge("four", "five")
        elif one == "least":
            labels = np.repeat([0, 1], [26, 10])
            learner.learn(
                Task.from_arrays("few", few, labels, ["noise", "less noise"]), {"label_check": False}
            )
        else:
            labels = np.repeat([0, 1], [26, 10])
            learner.learn(Task.from_arrays("more", few, labels, ["1", "10"]), {"label_check": False})


def _write_merged(out: Path, files: list[Path], quarters: list[Path]) -> None:
    place = out / "merged"
    place.mkdir()
    fleet.merge(files, place / "plain.cskc")
    fleet.merge(files, place / "signed.cskc", sign=out / "operator.pem")
    fleet.merge(files, place / "strange.cskc", sign=out / "stranger.pem")
    fleet.merge(files, place / "apart.cskc", keep_apart=True)
    fleet.merge(files, place / "named.cskc", same={"five": "fünf", "six": "sechs"})
    fleet.merge(files, place / "base.cskc", same={"zero": "six"})
    fleet.merge(files, place / "twin.cskc", same={"six": "Four"})
    # Some say the same of the same images, others of other ones, and one is set aside.
    found = fleet.merge([*files, *quarters], place / "both.cskc", keep_apart=True)
    assert [one.split()[0] for one in found.quarantined] == ["quarter-3"]
    assert found.classes["four"] > 200


def _write_applied(out: Path, bundle: Path, settings: TrainingConfig, data: digits.Digits) -> None:
    told = {}
    for kind, before, merged in (
        ("plain", "kitchen", "plain"),
        ("signed", "kitchen", "signed"),
        ("apart", "kitchen", "apart"),
        ("named", "kitchen", "named"),
        ("trained", "trained", "plain"),
        ("both", "kitchen", "both"),
        ("renamed", "renamed", "plain"),
        ("alike", "taught", "plain"),
    ):
        state = out / "applied" / kind
        shutil.copytree(out / before, state)
        learner = Learner.open(bundle, state, settings)
        report = fleet.apply(learner, out / "merged" / f"{merged}.cskc")
        found = learner.predict(data.test_images[..., None])
        told[kind] = {
            "before": before,
            "merged": merged,
            "report": asdict(report),
            "labels": found.labels.tolist(),
            "known": found.known.tolist() if found.known is not None else None,
        }
    (out / "applied.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def _write_forgotten(
    out: Path, bundle: Path, settings: TrainingConfig, folder: Path, data: digits.Digits
) -> None:
    """Of two devices, `state/` of one that knows what both have learned."""
    names = ("kitchen", "hall")
    fleet.merge([folder / f"{name}.cskc" for name in names], folder / "two.cskc")
    shutil.copytree(folder / "kitchen", out / "state")
    fleet.apply(Learner.open(bundle, out / "state", settings), folder / "two.cskc")
    told: dict[str, object] = {}
    forgotten: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("all", {}),
        ("six", {"classes": ["six"]}),
        ("own", {"task": "fleet"}),
        ("lent", {"task": next(iter(digits.TASKS))}),
    )
    for kind, what in forgotten:
        shutil.copytree(out / "state", folder / kind)
        learner = Learner.open(bundle, folder / kind, settings)
        remains = learner.forget(*what.get("classes", ()), task=what.get("task")).remains if what else ()
        tensors = learner.generation.tensors
        told[kind] = {
            "labels": learner.predict(data.test_images[..., None]).labels.tolist(),
            "classes": learner.classes,
            "counts": tensors["statistics.counts"].tolist(),
            "trace": float(np.trace(tensors["statistics.scatter"])),
            "remains": remains,
        }
    (out / "told.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def _write_refused(out: Path, bundle: Bundle) -> None:
    """Each value of what files say replaced by others, under a checksum that fits, and what Python says of it."""
    found = []
    folder = out / "tried"
    folder.mkdir()
    for base in ("merged/plain", "merged/apart", "merged/signed", "exported/signed/file"):
        whole = (out / f"{base}.cskc").read_bytes()
        for metadata in _edited(whole):
            header = dict(_header(whole), __metadata__=metadata)
            (folder / CALLED).write_bytes(_file(header, whole))
            with chdir(folder):
                sentence = _refusal(bundle)
            found.append({"base": base, "metadata": metadata, "sentence": sentence})
    shutil.rmtree(folder)
    assert sum(one["sentence"] is not None for one in found) > 200
    (out / "refused.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def _refusal(bundle: Bundle) -> str | None:
    try:
        _read(FleetFile.open(Path(CALLED)), bundle)
    except FleetError as error:
        return str(error)
    return None


def _edited(whole: bytes) -> Iterator[dict[str, Any]]:
    metadata = _header(whole)["__metadata__"]
    said = json.loads(metadata["fleet"])
    for name in metadata:
        yield {other: text for other, text in metadata.items() if other != name}
        yield {**metadata, name: "0" * 64}
    yield _said(metadata, '"\\ud800')
    yield _said(metadata, json.dumps(said) + "\ud800")
    yield _said(metadata, "[" * 40 + "]" * 40)
    yield _said(metadata, json.dumps({**said, "new": 1}))
    for changed in _changed(said):
        yield _said(metadata, changed)
    for number, one in enumerate(said["statements"][:1]):
        text = json.loads(one["text"])
        for changed in _changed(text):
            statements = list(said["statements"])
            statements[number] = {**one, "text": changed}
            yield _said(metadata, json.dumps({**said, "statements": statements}))
            # And as one that nobody signed.
            if one["key"]:
                statements[number] = {"text": changed, "key": "", "signature": ""}
                yield _said(metadata, json.dumps({**said, "statements": statements}))


def _changed(said: Any) -> Iterator[str]:
    yield from filter(None, map(_text, _circles(said)))
    yield from filter(None, map(_text, each_value_changed(_few(said))))


def _few(said: Any) -> Any:
    """With one or two of each list: others are the same again."""
    if isinstance(said, dict):
        return {name: _few(one) for name, one in said.items()}
    return [_few(one) for one in said[:2]] if isinstance(said, list) else said


def _circles(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "same" in said:
        yield {**said, "same": {"x": "y", "y": "x"}}
        yield {**said, "same": {"x": "x"}}
        yield {**said, "same": {"x": "y", "y": "z"}}


def _text(value: Any) -> str | None:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return None


def _said(metadata: dict[str, str], text: str) -> dict[str, Any]:
    return {**metadata, "fleet": text, "check": hashlib.sha256(text.encode(errors="replace")).hexdigest()}


def _header(whole: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", whole[:8])
    header: dict[str, Any] = json.loads(whole[8 : 8 + length])
    return header


def _file(header: dict[str, Any], whole: bytes) -> bytes:
    (length,) = struct.unpack("<Q", whole[:8])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]
