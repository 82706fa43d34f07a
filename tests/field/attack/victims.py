"""The commands that are killed, and what must be true behind each kill."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

from field.attack import judge
from field.attack.applications import look_on, stream, upgrade
from field.attack.ground import MODEL, Ground
from field.attack.kills import Victim, csk, json_lines, no_leftovers, state_is

KILLS = 500


def victims(ground: Ground) -> list[Victim]:
    """All of them; their shares add up to 1."""
    return [
        _train(ground),
        _watch(ground),
        _rollback(ground),
        _verify(ground),
        _stream(ground),
        _build(ground),
        _upgrade(ground),
        _carried(ground),
        _export(ground),
        _report(ground),
        _evaluate(ground),
        _predict(ground),
        _beside(ground),
    ]


def _at(ground: Ground, learned: int) -> Any:
    return lambda place, rng: ground.reset(place, learned)


def _state(ground: Ground, floor: int, top: int) -> Any:
    return lambda place, armed, printed: state_is(place, ground, floor, top)


def _ends_at(ground: Ground, head: int) -> Any:
    return lambda place, armed: state_is(place, ground, head, head) and None


def _train(ground: Ground) -> Victim:
    def after(place: Path, armed: object, printed: str) -> None:
        state_is(place, ground, 2 if "Learned 02" in printed else 1, 2)

    return Victim(
        "train",
        0.15,
        _at(ground, 1),
        lambda place: csk("train", "--task", "all", "--no-evaluate", "--workspace", str(place)),
        after,
        _ends_at(ground, 2),
    )


def _watch(ground: Ground) -> Victim:
    def after(place: Path, armed: object, printed: str) -> None:
        told = sum(one.get("event") == "learned" for one in json_lines(printed))
        if told or (place / "state").exists():
            state_is(place, ground, told, 2)

    return Victim(
        "watch",
        0.12,
        _at(ground, 0),
        lambda place: csk(
            "watch",
            "--once",
            "--settle",
            "0",
            "--poll",
            "0.1",
            "--nice",
            "0",
            "--json",
            "--workspace",
            str(place),
        ),
        after,
        _ends_at(ground, 2),
    )


def _rollback(ground: Ground) -> Victim:
    def both(place: Path, armed: object, printed: str) -> None:
        head = state_is(place, ground, 1, 2)
        assert sorted(judge.look(place / "state").intact) == [1, 2], "going back lost a generation"
        assert head == 1 or "Back at" not in printed

    def end(place: Path, armed: object) -> None:
        both(place, armed, "")
        assert judge.look(place / "state").head == 1

    return Victim(
        "rollback",
        0.08,
        _at(ground, 2),
        lambda place: csk("rollback", "--to", "01", "--workspace", str(place)),
        both,
        end,
    )


# What is damaged, and which generation is the newest intact one on the way back then.
DAMAGE = {
    "HEAD": 2,
    "state.json": 2,
    "generations/000001.json": 2,
    "generations/000001.safetensors": 2,
    "generations/000002.safetensors": 1,
    "progress.safetensors": 2,
}


def damage(path: Path, rng: random.Random) -> str:
    """Lose a file, or one bit, or its end."""
    kind = rng.choice(["lost", "flipped", "cut"])
    if kind == "lost":
        path.unlink()
        return kind
    content = bytearray(path.read_bytes())
    if kind == "cut":
        del content[rng.randrange(len(content)) :]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return kind


def _verify(ground: Ground) -> Victim:
    def arm(place: Path, rng: random.Random) -> tuple[dict[int, judge.Bits], int]:
        ground.reset(place, 2)
        state = place / "state"
        (state / "progress.safetensors").write_bytes(b"\0" * 50)
        (state / "generations/000007.safetensors").write_bytes(b"debris")
        (state / ".HEAD.1-00.csk-tmp").write_bytes(b"debris")
        chosen = rng.choice(sorted(DAMAGE))
        damage(state / chosen, rng)
        return judge.intact_generations(state), DAMAGE[chosen]

    def after(place: Path, armed: tuple[dict[int, judge.Bits], int], printed: str) -> None:
        now = judge.intact_generations(place / "state")
        for number, bits in armed[0].items():
            assert now.get(number) == bits, f"repairing lost the intact generation {number}"

    def end(place: Path, armed: tuple[dict[int, judge.Bits], int]) -> None:
        after(place, armed, "")
        look = judge.look(place / "state")
        assert look.head == armed[1], f"generation {look.head} is current, not {armed[1]}"
        no_leftovers(place)

    return Victim(
        "verify --repair",
        0.12,
        arm,
        lambda place: csk("verify", "--repair", "--workspace", str(place)),
        after,
        end,
    )


def _stream(ground: Ground) -> Victim:
    first: list[dict[int, judge.Bits]] = []

    def after(place: Path, armed: object, printed: str) -> None:
        told = sum("committed" in one for one in json_lines(printed))
        if not (place / "state").exists():
            assert not told
            return
        look = judge.look(place / "state")
        assert told <= look.head, f"{told} were committed, and generation {look.head} is current"
        for number, bits in look.intact.items():
            assert not first or bits == first[0][number], f"generation {number} has other bits"

    def end(place: Path, armed: object) -> None:
        look = judge.look(place / "state")
        assert (look.head, look.tasks) == (2, ("A", "B"))
        if not first:
            first.append(look.intact)
        assert look.intact == first[0]

    return Victim(
        "Learner.stream",
        0.07,
        _at(ground, 0),
        lambda place: (stream, str(place), str(ground.folder / "digits.npz")),
        after,
        end,
    )


def _upgrade(ground: Ground) -> Victim:
    """The same onto the bundle of a device that has learned: with the old one back, all is there."""
    build = _build(ground)
    kept: dict[str, dict[str, str]] = {}

    def arm(place: Path, rng: random.Random) -> None:
        build.arm(place, rng)
        shutil.copytree(ground.state(2), place / "state")
        kept.setdefault("state", judge.tree(place / "state"))

    def after(place: Path, armed: object, printed: str) -> None:
        assert judge.tree(place / "state") == kept["state"], "the state was changed"
        build.after(place, armed, printed)

    def end(place: Path, armed: object) -> None:
        build.end(place, armed)
        assert judge.tree(place / "state") == kept["state"], "the state was changed"
        assert judge.bundle(place / "bundle") != judge.bundle(ground.bundle)
        # Taken back: what was learned is of the bundle that was there.
        shutil.rmtree(place / "bundle")
        shutil.copytree(ground.bundle, place / "bundle")
        state_is(place, ground, 2, 2)
        known = judge.sealed_json(place / "state/state.json")["bundle_id"]
        assert known == hashlib.sha256((place / "bundle/manifest.json").read_bytes()).hexdigest()

    return Victim("upgrade of a bundle", 0.03, arm, build.command, after, end, make=build.make)


def _carried(ground: Ground) -> Victim:
    """What a device has learned, carried over to another bundle: both are the old ones, or both are the new ones."""
    from csk_sdk.state.handover import finish

    known: dict[str, Any] = {}

    def make(_: Ground, place: Path) -> None:
        place.mkdir()

    def arm(place: Path, rng: random.Random) -> None:
        for path in place.iterdir():
            shutil.rmtree(path)
        shutil.copytree(ground.bundle, place / "bundle")
        shutil.copytree(ground.state(2), place / "state")
        known["old"] = judge.bundle(ground.bundle)

    def after(place: Path, armed: object, printed: str) -> None:
        # As whatever opens the device does first.
        finish(place / "bundle", place / "state")
        made, found = judge.bundle(place / "bundle"), judge.look(place / "state")
        own = hashlib.sha256((place / "bundle/manifest.json").read_bytes()).hexdigest()
        assert judge.sealed_json(place / "state/state.json")["bundle_id"] == own, "one is old, the other new"
        assert found.tasks == ("01", "02")
        if made == known["old"]:
            assert "upgraded" not in printed
            state_is(place, ground, 2, 2)
        else:
            assert made == judge.bundle(ground.following)
            assert found.intact == known.setdefault("new", found.intact), "it was carried over to other bits"

    def end(place: Path, armed: object) -> None:
        after(place, armed, "")
        assert judge.bundle(place / "bundle") != known["old"]
        assert judge.bundle(place / "bundle.before") == known["old"]
        left = {path.name for path in place.iterdir()} - {"device.json"}
        assert left == {"bundle", "state", "bundle.before", "state.before", ".state.upgrade"}, left

    return Victim(
        "upgrade of a device that has learned",
        0.1,
        arm,
        lambda place: (upgrade, str(place), str(ground.following)),
        after,
        end,
        make=make,
    )


def _build(ground: Ground) -> Victim:
    """The new bundle differs in its batch size. At any moment a whole one is there: in its place, or beside it."""
    known: dict[str, str] = {}

    def make(_: Ground, place: Path) -> None:
        place.mkdir()

    def arm(place: Path, rng: random.Random) -> None:
        for path in place.iterdir():
            shutil.rmtree(path)
        shutil.copytree(ground.bundle, place / "bundle")
        known["old"] = judge.bundle(place / "bundle")

    def after(place: Path, armed: object, printed: str) -> None:
        whole = []
        for folder in place.iterdir():
            try:
                whole.append((folder.name, judge.bundle(folder)))
            except judge.Damaged:
                assert folder.name != "bundle", "half a bundle is in its place"
        assert any(found == known["old"] or found == known.get("new", found) for _, found in whole), (
            f"no whole bundle is left: {[path.name for path in place.iterdir()]}"
        )

    def end(place: Path, armed: object) -> None:
        made = judge.bundle(place / "bundle")
        assert json.loads((place / "bundle/manifest.json").read_text())["batch_size"] == 8
        assert known.setdefault("new", made) == made, "the same command built another bundle"

    def build(place: Path) -> tuple[Any, ...]:
        classes = str(ground.folder / "classes.json")
        options = ("--classes", classes, "--mean", "0.3056", "--std", "0.3776", "--batch-size", "8")
        return csk("build-artifacts", str(MODEL), "--out", str(place / "bundle"), *options, "--overwrite")

    return Victim("build-artifacts --overwrite", 0.05, arm, build, after, end, make=make)


def _written(ground: Ground, name: str, share: float, file: str, old: bytes) -> Victim:
    """A command that replaces one file of its own kind, `old`: that or the new one is there; the state is as it was."""
    known: dict[str, str] = {}
    before: dict[str, dict[str, str]] = {}

    def arm(place: Path, rng: random.Random) -> None:
        if not before:
            ground.reset(place, 2)
            before["state"] = judge.tree(place / "state")
        (place / file).write_bytes(old)

    def whole(place: Path) -> str:
        assert judge.tree(place / "state") == before["state"], "the state was changed"
        return hashlib.sha256((place / file).read_bytes()).hexdigest()

    def after(place: Path, armed: object, printed: str) -> None:
        assert whole(place) in (hashlib.sha256(old).hexdigest(), known["new"]), f"half of {file}"

    def end(place: Path, armed: object) -> None:
        found = whole(place)
        assert known.setdefault("new", found) == found, f"the same command wrote another {file}"
        assert found != hashlib.sha256(old).hexdigest()

    return Victim(
        name,
        share,
        arm,
        lambda place: csk(name, "--out", str(place / file), "--overwrite", "--workspace", str(place)),
        after,
        end,
    )


def _export(ground: Ground) -> Victim:
    return _written(ground, "export", 0.08, "model.onnx", MODEL.read_bytes())


def _report(ground: Ground) -> Victim:
    return _written(ground, "report", 0.04, "report.html", b"<!doctype html>old")


def _evaluate(ground: Ground) -> Victim:
    def whole(place: Path, armed: object, printed: str) -> None:
        state_is(place, ground, 2, 2)
        for path in (place / "state/scores").glob("*.json"):
            judge.sealed_json(path)

    def end(place: Path, armed: object) -> None:
        whole(place, armed, "")
        assert judge.sealed_json(place / "state/scores/000002.json")["scores"]

    return Victim(
        "evaluate",
        0.04,
        _at(ground, 2),
        lambda place: csk("evaluate", "--workspace", str(place)),
        whole,
        end,
    )


def _predict(ground: Ground) -> Victim:
    """Who predicts is killed; who learns beside it ends as it would alone."""
    return Victim(
        "predict beside train",
        0.06,
        _at(ground, 1),
        lambda place: (look_on, str(place), str(ground.folder / "digits.npz"), 3),
        _state(ground, 1, 2),
        lambda place, armed: state_is(place, ground, 1, 2) and None,
        beside=lambda place: csk("train", "--task", "all", "--no-evaluate", "--workspace", str(place)),
    )


def _beside(ground: Ground) -> Victim:
    """Who learns is killed; who predicts beside it goes on."""
    return Victim(
        "train beside predict",
        0.06,
        _at(ground, 1),
        lambda place: csk("train", "--task", "all", "--no-evaluate", "--workspace", str(place)),
        _state(ground, 1, 2),
        _ends_at(ground, 2),
        beside=lambda place: (look_on, str(place), str(ground.folder / "digits.npz"), 3),
    )
