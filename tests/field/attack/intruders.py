"""Bundles that were made to harm, or that another key signed, or none."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

from field.attack import judge
from field.attack.ground import Done, Ground, csk_sdk
from field.attack.promise import GUARANTEES, Tries, promise


def reseal(bundle: Path, raw: dict[str, Any] | None = None) -> None:
    """What any stranger can do: make hashes and sizes in a manifest those of the files that are there."""
    import hashlib

    from csk_sdk.contract.manifest import sealed

    raw = raw or json.loads((bundle / "manifest.json").read_text())
    for name, entry in raw["files"].items():
        if (bundle / name).is_file():
            content = (bundle / name).read_bytes()
            entry.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    (bundle / "manifest.json").write_text(sealed(raw))


class Bundles:
    """Copies of the good bundle, of which only what is changed is a copy."""

    def __init__(self, ground: Ground, place: Path) -> None:
        self.ground, self.folder = ground, place / "bundle"
        self.good = json.loads((ground.bundle / "manifest.json").read_text())

    def fresh(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        return Path(shutil.copytree(self.ground.bundle, self.folder))

    def opened(self) -> str | None:
        """The sentence that it is refused with; None where it is opened and predicts."""
        from csk_sdk import BundleError, Learner

        try:
            learner = Learner.open(self.folder, self.folder.parent / "no-state")
            learner.predict(self.ground.of(0, 0, 1)[..., None])
        except BundleError as error:
            text = str(error)
            assert "\n" not in text
            assert text.endswith("."), text
            return text
        return None


@promise(
    GUARANTEES,
    "a name in a manifest",
    "a file of a bundle",
    "a number in a manifest",
    "a graph",
    "a safetensors header",
    "a checkpoint",
    "Each refusal is one sentence that says what, where and what to do",
    tries=700,
)
def hostile_bundles_are_refused(tries: Tries, ground: Ground, place: Path) -> None:
    """The table of test_hostile_bundles.py, and random damage, names and headers, hashes made right or not."""
    from field.test_hostile_bundles import HOSTILE, Hostile

    bundles = Bundles(ground, place)
    outside = place / "elsewhere.onnx"
    cases = sorted(HOSTILE)
    for number in tries:
        outside.unlink(missing_ok=True)
        folder = bundles.fresh()
        if number < len(cases) or number % 4 == 0:
            case = cases[number % len(cases)]
            with tries.one(case):
                hostile = Hostile(folder, json.loads((folder / "manifest.json").read_text()))
                change, text = HOSTILE[case]
                change(hostile)
                hostile.finish()
                refused = bundles.opened()
                assert refused is not None, "it was opened"
                assert any(part in refused for part in text.split("|")), refused
        else:
            (_flipped, _named, _tensors)[number % 4 - 1](tries, bundles, folder)
        if (place / "no-state").exists():
            tries.fault("a refused bundle left a state")


def _flipped(tries: Tries, bundles: Bundles, folder: Path) -> None:
    """Any bit of any file, its hash as it was: not the file that was built."""
    name = tries.rng.choice([*sorted(bundles.good["files"]), "manifest.json"])
    content = bytearray((folder / name).read_bytes())
    kind = tries.rng.choice(["flipped", "cut", "longer"])
    if kind == "flipped":
        content[tries.rng.randrange(len(content))] ^= 1 << tries.rng.randrange(8)
    elif kind == "cut":
        del content[tries.rng.randrange(len(content) - 1) :]
    else:
        content += tries.rng.randbytes(9)
    (folder / name).write_bytes(content)
    with tries.one(f"{name} {kind}"):
        refused = bundles.opened()
        assert refused is not None, "it was opened"
        assert name in refused, refused


def _named(tries: Tries, bundles: Bundles, folder: Path) -> None:
    """A listed file whose name leads elsewhere."""
    parts = [
        tries.rng.choice(["..", "a", "", ".", "/etc", "C:", "\\", "b\0", "~"])
        for _ in range(tries.rng.randint(1, 4))
    ]
    name = "/".join([*parts, tries.rng.choice(["..", "../x", "x\\y", "/x", "c:x"])])
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"][name] = {"sha256": "0" * 64, "size": 1}
    reseal(folder, raw)
    with tries.one(f"a file called {name!r}"):
        refused = bundles.opened()
        assert refused is not None, "it was opened"
        assert "outside the bundle" in refused, refused


def _tensors(tries: Tries, bundles: Bundles, folder: Path) -> None:
    """A header of tensors with random edits: what is opened is what the safetensors library reads, too."""
    from safetensors.numpy import load_file

    from field.fuzz_targets import VALUES

    path = folder / "checkpoint.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = tries.rng.choice(sorted(name for name in header if name != "__metadata__"))
    kind = tries.rng.choice(["dtype", "shape", "data_offsets", "gone", "renamed"])
    if kind == "gone":
        del header[name]
    elif kind == "renamed":
        header[name + "x"] = header.pop(name)
    else:
        header[name][kind] = tries.rng.choice(VALUES)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    reseal(folder)
    with tries.one(f"{kind} of tensor {name}"):
        refused = bundles.opened()
        if refused is None:
            # Under another name, it is a newer csk-sdk's: nothing asks for it, and a temperature may be missing.
            renamed = {name, name + "x"} if (kind, name) == ("renamed", "statistics.temperature") else set()
            there = load_file(path).keys() ^ load_file(bundles.ground.bundle / path.name).keys()
            assert there == renamed


@promise(GUARANTEES, "Python and JavaScript refuse the same manifests in the same sentences", tries=748)
def edited_manifests(tries: Tries, ground: Ground, place: Path) -> None:
    """The recorded edits through Python; `make test-js` holds TypeScript to the same file."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "contract"))
    from make_manifests import HERE, edited, refusal

    recorded = json.loads((HERE / "manifests.json").read_text())
    edits = recorded["edits"]
    for edit in tries.rng.sample(edits, min(tries.count, len(edits))):
        with tries.one(f"{edit['path']}"):
            assert refusal(edited(recorded["manifest"], edit)) == edit["refused"]


@promise(
    GUARANTEES,
    "From then on bundles that are unsigned, signed by another key, or changed in any byte are refused by every "
    "command, before anything in the manifest is believed.",
    tries=150,
)
def signed_bundles(tries: Tries, ground: Ground, place: Path) -> None:
    """A signed bundle with any one bit of any file changed, hashes made right again, under all commands."""
    from csk_sdk.bundle.signing import SIGNATURE

    workspace = ground.workspace(place / "workspace")
    (workspace / "bundle").unlink()
    (ours, trusted), (theirs, _) = key_pair(place, "ours"), key_pair(place, "theirs")
    signed = Path(shutil.copytree(ground.bundle, place / "signed"))
    signed_by(signed, ours)
    trust = ("--trust", str(trusted))
    with tries.one("as it is"):
        shutil.copytree(signed, workspace / "bundle")
        done = csk_sdk("verify", "--workspace", workspace, *trust)
        assert done.status == 0, done.out + done.err
    names = [path.name for path in signed.iterdir()]
    (place / "x.png").write_bytes(picture(ground))
    commands = [
        ("train",),
        ("predict", str(place / "x.png")),
        ("tasks",),
        ("verify",),
        ("export", "--out", str(place / "x.onnx")),
    ]
    for _ in tries:
        shutil.rmtree(workspace / "bundle")
        bundle = Path(shutil.copytree(signed, workspace / "bundle"))
        how = tries.rng.choice(["a bit", "a bit, sealed again", "another key", "unsigned"])
        name = tries.rng.choice(names)
        if how.startswith("a bit"):
            content = bytearray((bundle / name).read_bytes())
            content[tries.rng.randrange(len(content))] ^= 1 << tries.rng.randrange(8)
            (bundle / name).write_bytes(content)
            if "sealed" in how:
                if name == "manifest.json":
                    shutil.copy(signed / name, bundle / name)
                    raw = json.loads((bundle / name).read_text())
                    raw["batch_size"] += 1
                    reseal(bundle, raw)
                else:
                    reseal(bundle)
        elif how == "another key":
            signed_by(bundle, theirs)
        else:
            (bundle / SIGNATURE).unlink()
        command = tries.rng.choice(commands)
        with tries.one(f"{how} of {name}, {command[0]}"):
            done = csk_sdk(*command, "--workspace", workspace, *trust)
            assert done.status == 1, done.out
            assert "Traceback" not in done.err
            assert not (place / "x.onnx").exists()
            assert not (workspace / "state/HEAD").exists()


def key_pair(place: Path, name: str) -> tuple[Path, Path]:
    """A new private key, and its public one, as PEM files."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key, pem = ed25519.Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    private, public = place / f"{name}.pem", place / f"{name}-trust.pem"
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def signed_by(bundle: Path, key: Path) -> None:
    """Sign a bundle as it is."""
    from csk_sdk.bundle.signing import SIGNATURE, sign

    (bundle / SIGNATURE).write_bytes(sign((bundle / "manifest.json").read_bytes(), key))


@promise(GUARANTEES, "The top of what an operator names is trusted: --bundle, --state, --tasks", tries=20)
def the_top_may_be_a_link(tries: Tries, ground: Ground, place: Path) -> None:
    """Each of the three behind one to three links, relative or not."""
    for number in tries:
        workspace = place / f"{number}"
        workspace.mkdir()
        (workspace / "csk.toml").write_text("[training]\nthreads = 1\n")
        (workspace / "real-state").mkdir()
        for name, target in (
            ("bundle", ground.bundle),
            ("tasks", ground.folder / "tasks"),
            ("state", workspace / "real-state"),
        ):
            for step in range(tries.rng.randint(0, 2)):
                link = workspace / f"{name}-{step}"
                link.symlink_to(target if tries.rng.random() < 0.5 else os.path.relpath(target, workspace))
                target = link
            (workspace / name).symlink_to(target)
        with tries.one("three links"):
            assert csk_sdk("train", "--no-evaluate", "--epochs", "1", "--workspace", workspace).status == 0
            assert judge.look(workspace / "real-state").tasks == ("01",)
        shutil.rmtree(workspace)


def picture(ground: Ground) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(ground.of(4, 0, 1)[0]).save(out, "PNG")
    return out.getvalue()


def random_bits(content: bytes, rng: random.Random) -> bytes:
    """A few random changes of any kind."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + rng.randrange(20)] = b""
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.randrange(9))
        else:
            changed[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
    return bytes(changed)


def refused_or_done(done: Done) -> None:
    """A command either did it or said why not, in a sentence."""
    assert done.status in (0, 1), done.err[-500:]
    assert "Traceback" not in done.err
    if done.status == 1:
        judge.one_sentence(done.err)
