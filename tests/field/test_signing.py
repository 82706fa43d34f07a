"""Signed bundles: a device that trusts one key refuses everything else, a re-hash without the key included."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from cli.conftest import csk_sdk
from conftest import build_digits_bundle
from csk_sdk import Bundle, BundleError, ConfigError, Learner, StorageError, verify
from csk_sdk.bundle.signing import SIGNATURE, sign
from csk_sdk.cli.commands import functions
from csk_sdk.contract.manifest import MANIFEST, sealed
from csk_sdk.state.sealing import seal, unseal

PEM, RAW = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


def write_keys(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """A new key pair, as OpenSSL would write it."""
    key = ed25519.Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}-key.pem", folder / f"{name}-trust.pem"
    private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(PEM, RAW))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    return build_digits_bundle(tmp_path_factory.mktemp("signed") / "bundle", sign=keys[0])


@pytest.fixture
def signed(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "bundle"))


def rehash(bundle: Path, **changes: object) -> None:
    """What anyone can do: change the manifest, with hashes and seal that fit."""
    import hashlib

    raw = json.loads((bundle / MANIFEST).read_text()) | changes
    for name in raw["files"]:
        content = (bundle / name).read_bytes()
        raw["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (bundle / MANIFEST).write_text(sealed(raw))


def refused(bundle: Path, trust: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Learner.open(bundle, bundle.parent / "state", trust=trust)
    return str(caught.value)


def test_a_signed_bundle_opens_with_and_without_a_key(signed: Path, keys: tuple[Path, Path]) -> None:
    assert Bundle.open(signed, keys[1]).origin == f"signed by the key of {keys[1]}"
    assert Bundle.open(signed).id == Bundle.open(signed, keys[1]).id
    assert len((signed / SIGNATURE).read_bytes()) == 64


def test_what_openssl_signs_and_checks_is_the_same(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    # An independent implementation says what a signature is.
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the command openssl")
    message = tmp_path / "message"
    message.write_bytes(b"csk-sdk bundle manifest, signature scheme 1\n" + (signed / MANIFEST).read_bytes())
    command = [openssl, "pkeyutl", "-verify", "-rawin", "-in", message, "-sigfile", signed / SIGNATURE]
    done = subprocess.run(
        [*command, "-pubin", "-inkey", keys[1]], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "Signature Verified Successfully", done.stderr


def test_an_unsigned_bundle_is_refused(digits_bundle: Path, keys: tuple[Path, Path]) -> None:
    assert refused(digits_bundle, keys[1]) == (
        f"The bundle in {digits_bundle} is not signed, and this device trusts only bundles signed by the key of "
        f"{keys[1]}. Build it with `csk-sdk build-artifacts --sign KEY`."
    )


def test_an_attackers_rehash_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / "checkpoint.safetensors").write_bytes((signed / "weights.safetensors").read_bytes())
    rehash(signed, classes=["a", "b", "c", "d"])
    assert "is not signed by the key of" in refused(signed, keys[1])
    assert refused(signed, keys[1]).endswith("Do not use it; get the bundle again from whoever built it.")


def test_a_file_swapped_under_a_good_signature_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    shutil.copy(signed / "training_model.onnx", signed / "eval_model.onnx")
    assert "eval_model.onnx is not the file that was built" in refused(signed, keys[1])


def test_anothers_signature_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, "theirs")
    (signed / SIGNATURE).write_bytes(sign((signed / MANIFEST).read_bytes(), private))
    assert "the signature does not match" in refused(signed, keys[1])


@pytest.mark.parametrize("change", ["a bit", "shorter", "longer", "empty"])
def test_a_damaged_signature_is_refused(signed: Path, keys: tuple[Path, Path], change: str) -> None:
    good = (signed / SIGNATURE).read_bytes()
    bad = {
        "a bit": bytes([good[0] ^ 1]) + good[1:],
        "shorter": good[:-1],
        "longer": good + b"x",
        "empty": b"",
    }
    (signed / SIGNATURE).write_bytes(bad[change])
    assert "the signature does not match" in refused(signed, keys[1])


def test_a_signature_over_the_bare_manifest_is_none(signed: Path, keys: tuple[Path, Path]) -> None:
    key = serialization.load_pem_private_key(keys[0].read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    (signed / SIGNATURE).write_bytes(key.sign((signed / MANIFEST).read_bytes()))
    assert "the signature does not match" in refused(signed, keys[1])


def every_command(workspace: Path) -> list[list[str | Path]]:
    """All that open a device's bundle, but doctor and verify, which list what they find."""
    found: list[list[str | Path]] = [
        ["train"],
        ["tasks"],
        ["evaluate"],
        ["predict", "x.png"],
        ["export", "--out", workspace / "x.onnx"],
        ["report", "--out", workspace / "x.html"],
        ["rollback", "--to", "base"],
        ["watch", "--once", "--nice", "0"],
        ["status"],
        ["inspect", workspace / "bundle"],
        ["adapt", "night", "--remove"],
        ["forget", "zero"],
        ["rename", "zero", "one"],
        ["merge", "zero", "one"],
        ["upgrade", workspace / "bundle", "--yes"],
        ["fleet", "export", workspace / "x.cskc"],
        ["fleet", "apply", workspace / "x.cskc"],
    ]
    named = {" ".join(map(str, command[: 2 if command[0] == "fleet" else 1])) for command in found}
    no_bundle_of_a_device = {"build-artifacts", "analyze", "demo", "try", "pause", "resume"}
    # These open files of a fleet or kits of an engine, and no bundle of a device.
    of_files = {f"fleet {name}" for name in ("merge", "inspect", "serve", "prepare", "start", "round")}
    assert named | {"doctor", "verify"} | no_bundle_of_a_device | of_files == set(functions())
    return found


@pytest.mark.slow
def test_every_command_of_a_device_that_is_configured_with_a_key_refuses(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copy(keys[1], tmp_path / "trust.pem")
    (tmp_path / "csk.toml").write_text('[bundle]\ntrust = "trust.pem"\n')
    assert csk_sdk("tasks", "--workspace", tmp_path).status == 0
    rehash(signed, batch_size=1)
    for command in every_command(tmp_path):
        done = csk_sdk(*command, "--workspace", tmp_path)
        assert done.status == 1, command
        assert "the signature does not match" in done.err, command
    for command in (["doctor"], ["verify"]):
        done = csk_sdk(*command, "--workspace", tmp_path)
        assert done.status == 1, command
        assert "the signature does not match" in done.out, command
    # Without the setting it opens: the seal and the hashes fit.
    (tmp_path / "csk.toml").unlink()
    assert csk_sdk("tasks", "--workspace", tmp_path).status == 0
    assert csk_sdk("inspect", signed).status == 0
    assert csk_sdk("tasks", "--workspace", tmp_path, "--trust", tmp_path / "trust.pem").status == 1
    assert csk_sdk("inspect", signed, "--trust", tmp_path / "trust.pem").status == 1
    assert not verify(signed, tmp_path / "state", trust=tmp_path / "trust.pem").ok


@pytest.mark.parametrize("value", ["false", '""', "1", "[]"])
def test_a_key_that_is_set_wrong_is_never_taken_for_none(signed: Path, tmp_path: Path, value: str) -> None:
    (tmp_path / "csk.toml").write_text(f"[bundle]\ntrust = {value}\n")
    done = csk_sdk("tasks", "--workspace", tmp_path)
    assert done.status == 1
    assert "it must be the path of a public key, a PEM file." in done.err


def test_keys_that_are_none(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    other = tmp_path / "x25519.pem"
    other.write_bytes(x25519.X25519PrivateKey.generate().public_key().public_bytes(PEM, RAW))
    for trust, text in (
        (tmp_path / "none.pem", "cannot be read (No such file or directory)"),
        (private, "is not a public key in PEM form: make it with `openssl pkey"),
        (signed / MANIFEST, "is not a public key in PEM form"),
        (other, "is not an ed25519 key: make it with"),
    ):
        with pytest.raises(ConfigError) as caught:
            Bundle.open(signed, trust)
        assert text in str(caught.value)
    locked, _ = write_keys(tmp_path, "locked", password=b"x")
    for key, text in (
        (public, "is not a private key in PEM form: make one with `openssl genpkey"),
        (locked, "has a password: give a key file without one."),
        (tmp_path / "none.pem", "cannot be read"),
    ):
        with pytest.raises(ConfigError) as caught:
            build_digits_bundle(tmp_path / "out", sign=key)
        assert text in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_device_without_the_library_refuses(signed: Path, keys: tuple[Path, Path]) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from csk_sdk import Bundle, CskError\n"
        "Bundle.open(sys.argv[1])\n"
        "try: Bundle.open(sys.argv[1], sys.argv[2])\n"
        "except CskError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, signed, keys[1]], capture_output=True, text=True, check=True
    )
    assert done.stdout == "Signed bundles need the extra 'signing': pip install 'csk-sdk[signing]'.\n"


@pytest.mark.slow
def test_build_artifacts_signs(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    model = Path(__file__).parents[2] / "examples/digits/digits-base4.onnx"
    done = csk_sdk("build-artifacts", model, "--out", tmp_path / "bundle", "--sign", keys[0])
    assert done.status == 0, done.err
    assert Bundle.open(tmp_path / "bundle", keys[1]).manifest.classes


# Rollback protection


def with_counter(bundle: Path, counter: int | None, key: Path, out: Path) -> Path:
    """The bundle as it would be built with `--counter`, or by a csk-sdk that knew none."""
    shutil.copytree(bundle, out, dirs_exist_ok=True)
    raw = json.loads((out / MANIFEST).read_text())
    raw.pop("counter", None)
    (out / MANIFEST).write_text(sealed(raw if counter is None else raw | {"counter": counter}))
    (out / SIGNATURE).write_bytes(sign((out / MANIFEST).read_bytes(), key))
    return out


@pytest.fixture
def device(built: Path, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """A workspace that trusts our key, with a bundle of counter 5 that was opened once."""
    workspace = tmp_path / "workspace"
    (workspace / "tasks").mkdir(parents=True)
    shutil.copy(keys[1], workspace / "trust.pem")
    (workspace / "csk.toml").write_text('[bundle]\ntrust = "trust.pem"\n')
    with_counter(built, 5, keys[0], workspace / "bundle")
    assert csk_sdk("tasks", "--workspace", workspace).status == 0
    return workspace


def status(workspace: Path, *command: str | Path) -> int:
    return csk_sdk(*(command or ("tasks",)), "--workspace", workspace).status


@pytest.mark.slow
@pytest.mark.parametrize("older", [4, 0, None])
def test_an_older_bundle_is_refused_by_every_command(
    device: Path, built: Path, keys: tuple[Path, Path], older: int | None
) -> None:
    with_counter(built, older, keys[0], device / "bundle")
    for command in every_command(device):
        done = csk_sdk(*command, "--workspace", device)
        assert (done.status, done.out) == (1, ""), command
        assert f"its counter is {older or 0}, and 5 was seen." in done.err, command
    for name in ("doctor", "verify"):
        done = csk_sdk(name, "--workspace", device)
        assert done.status == 1
        assert "and 5 was seen." in done.out
    with pytest.raises(BundleError, match="is older than one that this device has accepted"):
        Learner.open(device / "bundle", device / "state", trust=keys[1])
    # The same number again, and newer ones, are fine.
    for counter in (5, 6):
        with_counter(built, counter, keys[0], device / "bundle")
        assert status(device) == 0
    with_counter(built, 5, keys[0], device / "bundle")
    assert status(device) == 1


@pytest.mark.slow
def test_the_owner_may_allow_one_older_bundle(device: Path, built: Path, keys: tuple[Path, Path]) -> None:
    with_counter(built, 3, keys[0], device / "bundle")
    assert status(device) == 1
    assert status(device, "verify", "--allow-older") == 0
    for command in (["tasks"], ["doctor"], ["verify"], ["inspect", device / "bundle"]):
        assert status(device, *command) == 0, command
    # That one only, and what was seen is not forgotten.
    with_counter(built, 4, keys[0], device / "bundle")
    assert status(device) == 1
    Learner.open(device / "bundle", device / "state", trust=keys[1], allow_older=True)
    assert status(device) == 0
    with_counter(built, 3, keys[0], device / "bundle")
    assert status(device) == 0
    with_counter(built, 2, keys[0], device / "bundle")
    assert status(device) == 1


def test_each_key_has_its_own_count(device: Path, built: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "theirs")
    with_counter(built, 1, private, device / "bundle")
    shutil.copy(public, device / "trust.pem")
    assert status(device) == 0


def test_old_bundles_without_a_counter_are_accepted(
    built: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = with_counter(built, None, keys[0], tmp_path / "bundle")
    assert Learner.open(bundle, tmp_path / "state", trust=keys[1]).bundle.manifest.counter == 0
    assert not (tmp_path / "state").exists()


def test_without_a_key_nothing_is_remembered(built: Path, tmp_path: Path) -> None:
    Learner.open(built, tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_what_was_seen_is_not_forgotten_by_damage(device: Path, damage: bytes) -> None:
    (device / "state/accepted.json").write_bytes(damage)
    done = csk_sdk("tasks", "--workspace", device)
    assert done.status == 1
    assert "accepted.json, which says what signed bundles were accepted, is damaged (" in done.err
    assert status(device, "verify", "--allow-older") == 0
    assert status(device) == 0


def test_what_a_newer_csk_sdk_says_of_it_stays(device: Path, built: Path, keys: tuple[Path, Path]) -> None:
    path = device / "state/accepted.json"
    raw = unseal(path)
    (key,) = raw["keys"]
    raw["keys"][key]["seen_at"] = [1.5]
    path.write_bytes(seal({**raw, "log": {"of": "doors"}}))
    with_counter(built, 9, keys[0], device / "bundle")
    assert status(device) == 0
    found = unseal(path)
    assert found["log"] == {"of": "doors"}
    assert found["keys"] == {key: {"seen_at": [1.5], "highest": 9, "allowed": []}}


def test_a_device_that_cannot_write_its_state_still_reads(
    device: Path, built: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("The disk is full.")

    with_counter(built, 9, keys[0], device / "bundle")
    with monkeypatch.context() as patch:
        patch.setattr("csk_sdk.bundle.accepted.replace_file", full)
        assert status(device) == 0
        assert status(device, "verify", "--allow-older") == 1
    learner = Learner.open(device / "bundle", device / "state", trust=keys[1])
    with learner.state.lock():  # while another process learns
        assert status(device) == 0
    assert '"highest":9' in (device / "state/accepted.json").read_text()


@pytest.mark.slow
def test_counters_of_builds(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    assert build_digits_bundle(tmp_path / "a")
    assert Bundle.open(tmp_path / "a").manifest.counter == 0
    build_digits_bundle(tmp_path / "b", sign=keys[0], counter=7)
    assert Bundle.open(tmp_path / "b").manifest.counter == 7
    build_digits_bundle(tmp_path / "c", sign=keys[0])
    assert Bundle.open(tmp_path / "c").manifest.counter > 1_700_000_000
    for options, text in (
        ({"counter": 1}, "give a key with --sign, or leave it out."),
        ({"counter": -1, "sign": keys[0]}, "it must be from 0 to 9007199254740991."),
        ({"counter": 1 << 53, "sign": keys[0]}, "it must be from 0 to 9007199254740991."),
    ):
        with pytest.raises(ConfigError) as caught:
            build_digits_bundle(tmp_path / "d", **options)
        assert text in str(caught.value)


def test_allowing_needs_a_key(device: Path) -> None:
    (device / "csk.toml").unlink()
    done = csk_sdk("verify", "--workspace", device, "--allow-older")
    assert (done.status, done.err) == (
        1,
        "Error: --allow-older is about signed bundles: name the key that you trust with --trust.\n",
    )


def test_the_runners_check_trusts_whom_the_workspace_trusts(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from csk_device_runners.__main__ import main

    rehash(device / "bundle", batch_size=3)
    assert main(["check", str(device / "bundle")]) == 1
    assert "the signature does not match" in capsys.readouterr().err


def test_a_bundle_from_elsewhere_is_inspected_with_the_key_of_the_workspace(
    device: Path, built: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    downloaded = with_counter(built, 9, write_keys(tmp_path, "theirs")[0], tmp_path / "downloaded")
    assert csk_sdk("inspect", downloaded).status == 0
    done = csk_sdk("inspect", downloaded, "--workspace", device)
    assert done.status == 1
    assert "the signature does not match" in done.err
    with_counter(built, 4, keys[0], downloaded)
    assert "and 5 was seen" in csk_sdk("inspect", downloaded, "--workspace", device).err
