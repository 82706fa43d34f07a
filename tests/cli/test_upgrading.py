"""`upgrade`, as somebody at a terminal meets it, with a signed bundle, too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cli.conftest import SETTINGS
from conftest import Digits, build_digits_bundle
from csk_sdk.cli.rendering import Screen

MODEL = Path(__file__).parents[2] / "examples/digits/digits-base4.onnx"


@pytest.fixture
def space(tmp_path: Path, digits_bundle: Path, digits: Digits) -> Path:
    """A workspace of its own with two tasks, both learned, of which one has left the inbox."""
    place = tmp_path / "device"
    place.mkdir()
    (place / "csk.toml").write_text(SETTINGS.replace("few_shot = 0", "few_shot = 100000"))
    shutil.copytree(digits_bundle, place / "bundle")
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        digits.save(digits.task(name, chosen, test=0), place / "tasks")
    return place


@pytest.mark.slow
def test_an_upgrade_and_back(
    run: Callable[..., Any],
    space: Path,
    base_data: Path,
    tmp_path: Path,
    digits_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = ("--workspace", str(space))
    assert run("train", "--task", "all", "--no-evaluate", *here).status == 0
    (space / "tasks/01.npz").unlink()
    new = build_digits_bundle(
        tmp_path / "new", base_data=base_data, features="last", upgrade_from=digits_bundle
    )
    done = run("upgrade", str(new), *here)
    said = " ".join(done.out.split())
    assert done.status == 0, done.err
    assert said.startswith(f"Upgrading to {new} takes ")
    assert "of disk, and up to" in said
    assert (
        "Carried over, without 176 features that are gone: 01. Learned again, since their images are here: 02."
        in said
    )
    assert "Learning 02 again ..." in said
    assert f"is this device's bundle now. The old one stays in {space / 'bundle.before'}, for --back." in said
    tasks = run("tasks", "--json", *here).json
    assert [(one["name"], one["state"]) for one in tasks] == [("01", "learned"), ("02", "learned")]
    monkeypatch.setattr(Screen, "can_ask", True)
    monkeypatch.setattr(Screen, "ask", lambda *_: "no")
    assert run("upgrade", "--back", *here).err == "Nothing was changed.\n"
    done = run("upgrade", "--back", "--yes", *here)
    assert done.out == "Back at the bundle and the state from before the last upgrade.\n"
    done = run("upgrade", "--back", "--yes", *here)
    assert done.err == f"Error: There is no way back: {space / 'bundle.before'} is not there.\n"
    found = run("upgrade", str(new), "--no-relearn", "--json", *here).json
    assert (found["carried"], found["learned_again"]) == (["01", "02"], [])
    assert run("verify", *here).status == 0
    listed = run("tasks", *here).out
    assert listed.count("learned") == 2
    assert "None" not in listed


def test_a_bundle_to_upgrade_to_says_how(
    run: Callable[..., Any], base_data: Path, tmp_path: Path, digits_bundle: Path
) -> None:
    given = (
        "--base-data",
        base_data,
        "--classes",
        MODEL.with_suffix(".json"),
        "--upgrade-from",
        digits_bundle,
    )
    done = run("build-artifacts", MODEL, "--out", tmp_path / "new", *given)
    assert done.status == 0, done.err
    assert (
        "copy the bundle beside the one that the device has, and there run\n  csk-sdk upgrade new\n"
        in done.out
    )


def test_either_a_bundle_or_back(run: Callable[..., Any], space: Path) -> None:
    for arguments in ((), ("new", "--back")):
        done = run("upgrade", *arguments, "--workspace", str(space))
        assert (done.status, done.err) == (1, "Error: Name the new bundle, or pass --back.\n")


@pytest.mark.slow
def test_signed_bundles_and_their_counters(
    run: Callable[..., Any], space: Path, base_data: Path, tmp_path: Path
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "trust.pem"
    pem, own = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, own, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    here = ("--workspace", str(space), "--trust", str(public))
    signed = {"base_data": base_data, "sign": private, "features": "last"}
    shutil.rmtree(space / "bundle")
    first = build_digits_bundle(tmp_path / "first", **signed, counter=2)
    shutil.copytree(first, space / "bundle")
    assert run("train", "--task", "all", "--no-evaluate", *here).status == 0
    new = build_digits_bundle(tmp_path / "new", **signed, counter=3, batch_size=8, upgrade_from=first)
    older = build_digits_bundle(tmp_path / "older", **signed, counter=1, batch_size=4, upgrade_from=first)
    refused = "is older than one that this device has accepted"
    assert refused in run("upgrade", str(older), *here).err
    unsigned = Path(shutil.copytree(new, tmp_path / "unsigned"))
    (unsigned / "manifest.sig").unlink()
    assert run("upgrade", str(unsigned), *here).status == 1
    assert run("upgrade", str(new), "--no-relearn", *here).status == 0
    # Its owner takes it back: the first counts for good, and nothing that is older than the newest seen.
    assert run("upgrade", "--back", "--yes", *here).status == 0
    assert run("tasks", *here).status == 0
    assert "and 3 was seen" in run("upgrade", str(older), *here).err
