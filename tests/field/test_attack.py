"""Promises and attacks belong together: none without the other. And the judge sees what it is there to see."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from field.attack import __main__ as entry
from field.attack import judge, page
from field.attack.attacks import PROMISES
from field.attack.forks import Forks
from field.attack.ground import Ground, prepare
from field.attack.harness import Harness
from field.attack.kills import Victim, fire
from field.attack.promise import GUARANTEES, ROOT, STATE, Tries, plain
from field.attack.victims import csk, damage, victims

DOCS = {name: (ROOT / name).read_text(encoding="utf-8") for name in (GUARANTEES, STATE)}
# Tables of formats and of results, which promise nothing.
NO_PROMISES = {"Measured", "Generations", "device.json"}
# Paragraphs that explain, or say what is not promised: by their first words.
EXPLAINS = (
    "What csk-sdk promises of a device in the field, and which test holds each promise.",
    "How often each was attacked, and how often it broke",
    "What is not promised: a disk that lies about fsync can lose what it acknowledged.",
    "What an unsigned bundle of a stranger can still cost is time and memory",
    "Hashes in a manifest protect against damage, not against a stranger",
    "The signature, 64 bytes in manifest.sig, is ed25519",
    "What a signature does not do",
    "Tested by tests/field/test_bad_data.py.",
    "A network can compute NaN or infinity for any image",
    "A camera of 12 bits has white at 4095",
    "in csk.toml; build-artifacts --bit-depth and analyze --bit-depth",
    "In int8, what was NaN in front of a rounding is some number behind it",
    "There is no noise in any of it, and no differential privacy.",
    "csk-sdk rollback makes an older generation the current one, but the tensors of later ones stay",
    "What the commands printed on one x86 machine",
    "What a device has learned: a folder",
    "Each learned task makes a generation: everything known up to then",
    "A TaskStream has no progress checkpoint: what it was fed is gone with the process.",
    "Copy while nothing is being committed",
    "csk-sdk forget CLASS, or --task NAME, takes out what was learned of it",
    "Deleted files are unlinked",
    "What a device knows of its classes is a sum, and the ledger keeps who contributed what",
    "- contributions, of a task, names by class the file",
    "A commit writes new files before its tensors",
    "Beside the state folder, and no part of it",
    "csk-sdk upgrade NEW_BUNDLE makes a state of its own",
    "Two folders cannot be renamed in one step",
    "moment/SITE is 1e30 on its diagonal",
    "A device's whole life on each, by make attack",
    "Types and bounds of these fields, and of what the progress checkpoint says",
    "exFAT and vfat have no journal",
)


def parts(text: str) -> list[tuple[str, str]]:
    """The rows (first cells) and paragraphs of a page, each with the title that it stands under."""
    found, title = [], ""
    for part in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        lines = part.strip().splitlines()
        if not lines or lines[0].startswith("<!--"):
            continue
        if lines[0].startswith("#"):
            title = lines[0].lstrip("# ")
        elif lines[0].startswith("|"):
            found += [(title, "| " + plain(line.split("|")[1])) for line in lines[2:]]
        else:
            found.append((title, plain(part)))
    return found


# Rows that are held by a test of their own, and not attacked yet.
TESTED_ELSEWHERE = {
    "after a block or its copy, before the tensors": "tests/field/test_power_cuts.py",
    "a contribution": "tests/learner/test_forgetting_classes.py",
    "after HEAD, before all of what is forgotten is removed": "tests/sdk/test_forgetting_files.py",
    "what was to be forgotten": "tests/sdk/test_forgetting_files.py",
    "blocks and contributions that no stored generation lists": "tests/sdk/test_forgetting_files.py",
    "a record that no other one tells, since nothing was learned from its generation": "tests/field/test_verify.py",
    "field.json, where predictions are counted (state.md)": "tests/learner/test_field.py",
    **dict.fromkeys(
        (
            "A forgotten class is never predicted again, by any head, until it is taught again.",
            (
                "No file of the state holds its contribution or its name, in no kept generation: those that held it "
                "are removed, under whatever name and on whatever branch, and a crash in between is made up for "
                "before anything else is written."
            ),
            (
                "Forgetting costs nothing else: all other tasks are known as before, whatever moment it is killed at "
                "and whatever a killed lesson had left. Which generations go is said."
            ),
            (
                "Where no center was ever trained, everything but the second moments and the quantiles of "
                "known images is, to the bit, what a device has that never learned the task."
            ),
            (
                "What images of the forgotten still have a share in is said: second moments, centers, and, of what "
                "was learned by a csk-sdk that kept no contributions, or whose contributions are lost, the spread that "
                "all classes share; and the state of before an upgrade, to which upgrade --back leads."
            ),
            "Classes of the base are hidden, and the command says that they are not forgotten.",
        ),
        "tests/learner/test_forgetting_classes.py",
    ),
    # Killed by `make attack` with all other commands.
    (
        "csk-sdk upgrade leaves the old bundle and the old state, or the new bundle and the new state, each whole, "
        "whenever it is killed or power fails, and so does upgrade --back; the next command finishes what had begun "
        "to count."
    ): "tests/field/test_handover.py",
    (
        "An upgrade that is refused or fails changes nothing, and one that succeeded can be taken back: bundle and "
        "state are then what they were, to the byte."
    ): "tests/learner/test_upgrade.py",
    # Each try would be a build.
    "base data, and the images of csk-sdk analyze": "tests/learner/test_not_finite.py",
    (
        "An older csk-sdk that meets what a newer one wrote, after a firmware rollback, loses nothing of it, and "
        "calls nothing damaged."
    ): "tests/deployed/test_newer.py",
    "Bundles and states that were ever deployed open.": "tests/deployed/test_deployed.py",
    "Merged files of a fleet are taken by such a device from the same key's holder only": (
        "tests/cli/test_fleet_commands.py"
    ),
    "What a file for a fleet reveals, of fewer things": "tests/learner/test_fleet.py",
    "In a fleet it is gone from other devices after the next merge and apply": "tests/learner/test_fleet.py",
}
# Of these titles, all rows and paragraphs.
TITLES_ELSEWHERE = {
    "Blocks": "tests/sdk/test_blocks.py",
    "Forgetting": "tests/sdk/test_forgetting_files.py",
    "field.json": "tests/learner/test_field.py",
    "fleet.json": "tests/learner/test_fleet.py",
    "A state that is newer than its reader": "tests/deployed/test_newer.py",
    "What opens for ever": "tests/deployed/test_deployed.py",
}
# A row that is a sentence may go on; one that is a name is matched as a whole.
_SENTENCE = 40
SAID = [says for promise in PROMISES.values() for says in promise.says]
STANDING = [part for text in DOCS.values() for part in parts(text)]


def begins(row: str, says: str) -> bool:
    return row == says or (len(says) > _SENTENCE and row.startswith(says))


@pytest.mark.parametrize("name", PROMISES)
def test_what_is_attacked_is_still_promised(name: str) -> None:
    rows = {text[2:] for _, text in STANDING if text.startswith("| ")}
    text = " ".join(text for _, text in STANDING if not text.startswith("| "))
    for says in PROMISES[name].says:
        assert any(begins(row, says) for row in rows) or says in text, f"no longer in the docs: {says}"


@pytest.mark.parametrize("where", DOCS)
def test_what_is_promised_is_attacked(where: str) -> None:
    unattacked = []
    for title, text in parts(DOCS[where]):
        if title in TITLES_ELSEWHERE:
            continue
        if text.startswith("| "):
            attacked = any(begins(text[2:], says) for says in SAID) or text[2:] in TESTED_ELSEWHERE
            if title not in NO_PROMISES and not attacked:
                unattacked.append(text)
        elif not any(says in text for says in SAID) and not text.startswith((*EXPLAINS, *TESTED_ELSEWHERE)):
            unattacked.append(text[:100])
    assert unattacked == [], "promise them with an attack (tests/field/attack), or list them in EXPLAINS"


def test_what_is_tested_elsewhere_is() -> None:
    rows = {text[2:] for _, text in STANDING if text.startswith("| ")}
    for row, where in TESTED_ELSEWHERE.items():
        assert row in rows or any(text.startswith(row) for _, text in STANDING), row
        assert (ROOT / where).is_file()
    for title, where in TITLES_ELSEWHERE.items():
        assert any(title == one for one, _ in STANDING), title
        assert (ROOT / where).is_file()


def test_what_only_explains_still_stands() -> None:
    for begin in EXPLAINS:
        assert any(text.startswith(begin) for _, text in STANDING), begin


def test_each_sentence_has_one_attack() -> None:
    assert len(SAID) == len(set(SAID))


def test_the_page_is_that_of_these_attacks() -> None:
    text = (ROOT / "docs/attack.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.*?) \| (\S+) \| [\d,]+ \| \d+ \|$", text, re.MULTILINE))
    assert list(rows.values()) == list(PROMISES), "make attack PAGE=docs/attack.md"
    assert list(rows) == [page.cell(promise.says) for promise in PROMISES.values()]


def test_the_shares_of_kills_are_all_of_them(tmp_path: Path) -> None:
    assert sum(victim.share for victim in victims(Ground(tmp_path))) == pytest.approx(1.0)


# The judge, and the harness itself: a fault must be one


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Harness(tmp_path_factory.mktemp("attack"), size=0.01)
    made.prepare()
    yield made
    made.forks.close()


@pytest.mark.slow
def test_the_judge_sees_every_damaged_byte(harness: Harness, tmp_path: Path) -> None:
    tries = Tries("judge", 60)
    files = ["HEAD", "state.json", "generations/000001.json", "generations/000002.safetensors"]
    for number in tries:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        shutil.copytree(harness.ground.state(2), tmp_path / "state")
        path = tmp_path / "state" / files[number % 4]
        whole = path.read_bytes()
        damage(path, tries.rng)
        if path.exists() and path.read_bytes().rstrip() == whole.rstrip():
            continue
        with pytest.raises((judge.Damaged, OSError)):
            judge.look(tmp_path / "state")
    bundle = Path(shutil.copytree(harness.ground.bundle, tmp_path / "bundle"))
    assert judge.bundle(bundle)
    content = bytearray((bundle / "weights.safetensors").read_bytes())
    content[1000] ^= 1
    (bundle / "weights.safetensors").write_bytes(content)
    with pytest.raises(judge.Damaged, match=r"weights\.safetensors is not the file that was built"):
        judge.bundle(bundle)


def test_a_command_that_loses_something_when_killed_is_found(harness: Harness, tmp_path: Path) -> None:
    """A rollback that is killed, and whose victim then finds a generation gone: a fault, told with its reason."""
    rollback = next(victim for victim in victims(harness.ground) if victim.name == "rollback")

    def after(place: Path, armed: object, printed: str) -> None:
        (place / "state/generations/000002.safetensors").unlink(missing_ok=True)
        rollback.after(place, armed, printed)

    careless = Victim("careless", 1.0, rollback.arm, rollback.command, after, rollback.end)
    tries = Tries("careless", 1)
    fire(harness.forks, harness.ground, careless, tmp_path / "place", tries)
    assert tries.broken > 0
    assert "not there" in tries.faults[0] or "lost a generation" in tries.faults[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["export", "upgrade of a bundle"])
def test_what_is_killed_is_killed_and_counted(harness: Harness, tmp_path: Path, name: str) -> None:
    victim = next(one for one in victims(harness.ground) if one.name == name)
    tries = Tries(name, 3)
    fire(harness.forks, harness.ground, victim, tmp_path / "place", tries)
    assert (tries.made >= 3, tries.faults) == (True, [])


def test_an_attack_that_dies_is_a_fault(harness: Harness) -> None:
    found = harness.attack("killed-at-any-moment")  # which is not for a process of its own
    assert found["faults"] == 1
    assert "NotImplementedError" in str(found["told"])


def test_an_attack_within_a_process(harness: Harness) -> None:
    found = harness.attack("numbers-are-never-used-twice")
    assert (found["faults"], found["told"]) == (0, [])
    assert json.dumps(found)
    assert "tries" in page.line("numbers-are-never-used-twice", found)


def test_what_broke_is_told_again_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """Lines come as attacks end: of a long log, its last lines say which promise broke, and how."""
    names = ["numbers-are-never-used-twice", page.KILLED]
    good = {"tries": 3, "faults": 0, "told": [], "skipped": [], "notes": [], "seconds": 0.1}
    bad = {**good, "faults": 2, "told": ["generation 2 is lost", "half of HEAD"], "victim": "train"}
    made = Harness(tmp_path, 0.01)
    monkeypatch.setattr(made, "prepare", lambda: None)
    monkeypatch.setattr(made, "run", lambda *_, **__: {names[0]: good, "kill 0": bad})
    monkeypatch.setattr(entry, "Harness", lambda *_: made)
    monkeypatch.setattr(
        "sys.argv", ["attack", "--out", str(tmp_path / "out.json"), *(f"--only={one}" for one in names)]
    )
    with pytest.raises(SystemExit) as stopped:
        entry.main()
    assert stopped.value.code == 1
    last = capsys.readouterr().out.splitlines()[-4:]
    assert last[0].startswith(f"BROKEN: {page.KILLED}, 2 of 3 tries: Whatever moment the power fails at")
    assert last[1:3] == ["   FAULT: generation 2 is lost", "   FAULT: half of HEAD"]
    assert last[3].startswith("2 promises, 6 tries, 2 faults in 1 promises; ")


@pytest.mark.slow
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    forks = Forks()
    (tmp_path / "ground").mkdir()
    run = forks.alone(tmp_path / "x.log", prepare, tmp_path / "nowhere")
    assert run.status != 0
    assert "nowhere" in run.out
    assert [path.name for path in tmp_path.iterdir()] == ["ground"]
    run = forks.run(tmp_path / "ground", *csk("--version"))
    assert run.status == 0
    assert run.out.startswith("csk-sdk ")
    assert [path.name for path in tmp_path.iterdir()] == ["ground"]
    forks.close()
