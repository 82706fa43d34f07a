"""Files of devices: merged in any order and grouping to the same bits; what is damaged, forged or poisoned."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csk_sdk import ConfigError, FleetError, fleet
from csk_sdk.fleet.files import FleetFile
from csk_sdk.fleet.merging import merged_of
from csk_sdk.fleet.packing import FEW_BITS, pack, unpack
from csk_sdk.fleet.reducing import Reduced
from csk_sdk.method.contributions import Contribution
from field.test_signing import write_keys
from sdk.fleets import FEATURES, Fake, alike, contribution, edited, images_of

MIXED = [
    Fake("a", {"cat": "cat", "dog": "dog"}, seed=1),
    Fake("b", {"cat": "cat"}, seed=2, count=90, temperature=2.0),
    Fake("c", {"dog": "dog", "owl": "owl"}, seed=3, temperature=1.5),
    Fake("d", {"cat": "cat", "owl": "owl"}, seed=4),
    Fake("e", {"cat": "cat"}, seed=2, count=90),  # the same images as b
    Fake("f", {"cat": "cat", "dog": "owl"}, seed=6),
]


def knowledge(path: Path) -> Reduced:
    found = merged_of(FleetFile.open(path))
    assert found is not None
    return found


# What is packed


@pytest.mark.parametrize("count", [1, 2, 20, 100, 300])
def test_a_packed_contribution_is_nearly_what_it_was(count: int) -> None:
    one = contribution("cat", count)
    found = unpack(pack(one, FEW_BITS), FEATURES)
    assert found.count == count
    assert found.mean.tobytes() == one.mean.tobytes()
    ours, theirs = (part.factor.astype(np.float64).T @ part.factor for part in (found, one))
    # Each feature's own spread is exact, and what two share nearly.
    np.testing.assert_allclose(np.diag(ours), np.diag(theirs), rtol=1e-5, atol=1e-9)
    scale = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs))) + 1e-12
    assert np.abs((ours - theirs) / scale).max(initial=0.0) < 0.1
    fine = unpack(pack(one), FEATURES).factor.astype(np.float64)
    assert np.abs((fine.T @ fine - theirs) / scale).max(initial=0.0) < 0.01


def test_what_is_packed_takes_a_quarter_or_a_seventh() -> None:
    wide = Contribution(100.0, np.zeros(832, np.float32), np.random.default_rng(0).normal(size=(64, 832)))
    assert len(pack(wide)) / (4 * 65 * 832) == pytest.approx(0.278, abs=0.001)
    assert len(pack(wide, FEW_BITS)) / (4 * 65 * 832) == pytest.approx(0.155, abs=0.001)


# Any order, any grouping


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_any_grouping_come_to_the_same_bits(data: st.DataObject, tmp_path: Path) -> None:
    chosen = data.draw(st.lists(st.sampled_from(MIXED), min_size=1, unique_by=lambda one: one.name))
    expected = tmp_path / "expected.cskc"
    paths = [one.write(tmp_path) for one in sorted(chosen, key=lambda one: one.name)]
    fleet.merge(paths, expected)
    groups = [data.draw(st.permutations(paths))]
    number = 0
    while len(groups[0]) > 1:
        # Some are merged, kept apart, and take their place among the others; some more than once.
        some = data.draw(st.lists(st.sampled_from(groups[0]), min_size=1, max_size=4))
        number += 1
        group = tmp_path / f"group {number}.cskc"
        fleet.merge(some, group, keep_apart=True)
        groups[0] = data.draw(st.permutations([one for one in groups[0] if one not in some] + [group]))
    fleet.merge(groups[0], tmp_path / "found.cskc")
    assert (tmp_path / "found.cskc").read_bytes() == expected.read_bytes()
    fleet.merge(data.draw(st.permutations(paths)), tmp_path / "apart.cskc", keep_apart=True)
    fleet.merge([tmp_path / "apart.cskc", *paths], tmp_path / "again.cskc", keep_apart=True)
    assert (tmp_path / "again.cskc").read_bytes() == (tmp_path / "apart.cskc").read_bytes()


def test_merged_is_what_one_who_saw_everything_has(tmp_path: Path) -> None:
    devices = alike(4, "cat", "dog")
    paths = [one.write(tmp_path) for one in devices]
    report = fleet.merge(paths, tmp_path / "merged.cskc")
    assert report.classes == {"cat": 160.0, "dog": 160.0}
    found = knowledge_of_merged(tmp_path / "merged.cskc")
    for name in ("cat", "dog"):
        everything = np.concatenate([images_of(name, 40, one.seed) for one in devices]).astype(np.float64)
        np.testing.assert_allclose(found[name].mean, everything.mean(axis=0), rtol=1e-5)
        spread = np.einsum("nf,nf->f", found[name].factor, found[name].factor)
        np.testing.assert_allclose(spread, 160 * everything.var(axis=0), rtol=1e-3)


def knowledge_of_merged(path: Path) -> dict[str, Contribution]:
    file = FleetFile.open(path)
    assert file.content.merged is not None
    return {one.name: unpack(file.blob(one.id), FEATURES) for one in file.content.merged.classes}


def test_the_same_images_count_once_and_a_newer_statement_in_place_of_an_older(tmp_path: Path) -> None:
    paths = [one.write(tmp_path) for one in MIXED]
    assert fleet.merge(paths[1:2] + paths[4:5], tmp_path / "m.cskc").classes == {"cat": 90.0}
    new = MIXED[0].but(shows={"dog": "dog"}, sequence=2).write(tmp_path, "new")
    for order in ([paths[0], new], [new, paths[0]]):
        report = fleet.merge(order, tmp_path / "m.cskc")
        assert (report.classes, report.withdrawn) == ({"dog": 40.0}, 1)


def test_temperatures_and_sketches_are_medians(tmp_path: Path) -> None:
    devices = [MIXED[0].but(name=str(n), seed=n, temperature=float(n)) for n in (1, 2, 9)]
    fleet.merge([one.write(tmp_path) for one in devices], tmp_path / "m.cskc")
    file = FleetFile.open(tmp_path / "m.cskc")
    merged = file.content.merged
    assert merged is not None
    assert merged.temperature == 2.0
    assert np.frombuffer(file.blob(merged.classes[0].sketch), "<f4").tolist() == [3.0] * 64


# Poison


def exchanged(one: Fake) -> Fake:
    return one.but(shows={"cat": "dog", "dog": "cat"})


def scaled(by: float) -> Callable[[Fake], Fake]:
    def change(one: Contribution) -> Contribution:
        return Contribution(one.count, one.mean * np.float32(by), one.factor * np.float32(by))

    return lambda fake: fake.but(change=change)


def spoiled(what: str, value: float) -> Callable[[Fake], Fake]:
    def change(one: Contribution) -> Contribution:
        mean, factor, count = one.mean.copy(), one.factor.copy(), one.count
        if what == "mean":
            mean[3] = value
        elif what == "factor":
            factor *= np.float32(value)
        else:
            count = value
        return Contribution(count, mean, factor)

    return lambda fake: fake.but(change=change)


@pytest.mark.parametrize(
    ("poison", "why"),
    [
        (exchanged, "lies apart from that of 4 of 4 others, and looks like 'dog'"),
        (scaled(2.0), "lies apart from that of 4 of 4 others"),
        (scaled(3.0), "spreads 9 times as far as usual"),
        (scaled(0.0), "lies apart from that of 4 of 4 others"),
        (scaled(-1.0), "lies apart from that of 4 of 4 others"),
        (spoiled("mean", np.nan), "has numbers that are not finite"),
        (spoiled("mean", np.inf), "has numbers that are not finite"),
        (spoiled("mean", 1e20), "has numbers too large for features"),
        (spoiled("factor", 1e30), "has numbers too large for features"),
        (spoiled("factor", 20.0), "spreads 4"),
        (spoiled("count", 1e7), "has 1e+07 images"),
        (spoiled("count", 0.25), "has 0.25 images"),
        (spoiled("count", 9000.0), "claims 9000 images"),
    ],
)
def test_who_sends_poison_is_set_aside_and_listed(
    tmp_path: Path, poison: Callable[[Fake], Fake], why: str
) -> None:
    devices = alike(5, "cat", "dog", "owl")
    honest = fleet.merge([one.write(tmp_path) for one in devices[:4]], tmp_path / "honest.cskc")
    poison(devices[4]).write(tmp_path, "poison")
    paths = [one.write(tmp_path) for one in devices[:4]] + [tmp_path / "poison.cskc"]
    report = fleet.merge(paths, tmp_path / "merged.cskc")
    ((device, said),) = report.quarantined.items()
    assert device.startswith("device 004 (")
    assert why in said
    assert report.knowledge == honest.knowledge
    if "finite" not in why and "too large" not in why:
        accepted = fleet.merge(paths, tmp_path / "merged.cskc", accept=["device 004"])
        assert (accepted.quarantined, accepted.devices) == ({}, 5)


def test_honest_devices_are_not_set_aside_though_they_differ(tmp_path: Path) -> None:
    def camera(one: Contribution) -> Contribution:
        # Another exposure: everything a little larger, and more in some features.
        gain = np.linspace(1.0, 1.1, FEATURES).astype(np.float32)
        return Contribution(one.count, one.mean * gain, one.factor * gain)

    devices = alike(5, "cat", "dog", "owl")
    paths = [one.write(tmp_path) for one in devices[:4]] + [
        devices[4].but(change=camera, count=400).write(tmp_path)
    ]
    assert fleet.merge(paths, tmp_path / "merged.cskc").quarantined == {}


def test_where_half_of_them_disagree_none_is_believed_and_two_settle_nothing(tmp_path: Path) -> None:
    devices = alike(4, "cat", "dog", "owl")
    halves = [*devices[:2], *(exchanged(one) for one in devices[2:])]
    report = fleet.merge([one.write(tmp_path) for one in halves], tmp_path / "merged.cskc")
    assert len(report.quarantined) == 4
    assert report.classes == {}
    two = fleet.merge([one.write(tmp_path) for one in halves[1:3]], tmp_path / "merged.cskc")
    assert two.quarantined == {}
    assert two.unconfirmed == ("cat", "dog", "owl")


def test_classes_of_fewer_than_three_are_unconfirmed(tmp_path: Path) -> None:
    devices = [*alike(3, "cat"), Fake("x", {"cat": "cat", "rat": "rat"}, seed=9)]
    report = fleet.merge([one.write(tmp_path) for one in devices], tmp_path / "m.cskc")
    assert report.unconfirmed == ("rat",)


# Names


def test_names_of_one_thing(tmp_path: Path) -> None:
    paths = [one.write(tmp_path) for one in alike(2, "cat", "dog", "owl")]
    paths.append(Fake("x", {"Katze": "cat", "Dog": "dog"}, seed=7).write(tmp_path))
    report = fleet.merge(paths, tmp_path / "m.cskc")
    assert [one.split(":")[0] for one in report.alike] == [
        "'Dog' and 'dog' look like one thing",
        "'Katze' and 'cat' look like one thing",
        "'dog' differs from 'Dog' only in case, spaces or accents, and a device can know one of them",
    ]
    same = {"Katze": "Cat", "Cat": "cat", "Dog": "dog"}
    report = fleet.merge(paths, tmp_path / "m.cskc", same=same)
    assert (report.classes, report.alike) == ({"cat": 120.0, "dog": 120.0, "owl": 80.0}, ())
    # Names travel with files that keep devices apart.
    fleet.merge(paths[:1], tmp_path / "one.cskc", same=same, keep_apart=True)
    assert fleet.merge([*paths[1:], tmp_path / "one.cskc"], tmp_path / "n.cskc").knowledge == report.knowledge
    for wrong, text in (
        ({"Dog": "owl"}, "and another says 'owl': merge the devices' own files with one of both."),
        ({"cat": "Katze"}, "is the same as another one, which is the same as"),
    ):
        with pytest.raises(FleetError, match=text):
            fleet.merge([tmp_path / "one.cskc"], tmp_path / "n.cskc", same=wrong)


def test_devices_left_out(tmp_path: Path) -> None:
    devices = alike(3, "cat", "dog")
    paths = [one.write(tmp_path) for one in devices]
    for name in ("device 001", devices[1].device[:8]):
        report = fleet.merge(paths, tmp_path / "m.cskc", without_devices=[name])
        assert report.classes == {"cat": 80.0, "dog": 80.0}
    with pytest.raises(FleetError, match="no device called 'nobody' in these files"):
        fleet.merge(paths, tmp_path / "m.cskc", without_devices=["nobody"])


# What does not belong together, and what is damaged


def test_what_cannot_be_merged_is_one_sentence(tmp_path: Path) -> None:
    one, two = (fake.write(tmp_path) for fake in MIXED[:2])
    other = MIXED[2].but(bundle="c" * 64).write(tmp_path)
    fleet.merge([one], tmp_path / "merged.cskc")
    (tmp_path / "text.cskc").write_text("no file of ours")
    out = tmp_path / "out.cskc"
    for files, text in (
        ([], "There is nothing to merge"),
        ([one, other], "is of bundle cccccccc…, and .* of bbbbbbbb…: only what was learned on one bundle"),
        ([one, tmp_path / "merged.cskc"], "is merged already, for devices: .*--keep-apart"),
        ([two, tmp_path / "text.cskc"], "cannot be read as a .cskc file"),
        ([two, tmp_path / "none.cskc"], "No such file or directory"),
        ([two, tmp_path], "not an ordinary file"),
    ):
        with pytest.raises(FleetError, match=text):
            fleet.merge(files, out)
        assert not out.exists()
    report = fleet.merge([one, two, tmp_path / "text.cskc"], out, skip_broken=True)
    assert list(report.skipped) == [str(tmp_path / "text.cskc")]
    assert report.devices == 2


def test_every_file_that_cannot_be_used_is_skipped(tmp_path: Path) -> None:
    """Whatever is wrong with it, and wherever: with the others it comes to what they come to alone."""
    good = [fake.write(tmp_path) for fake in MIXED[:2]]
    fleet.merge(good, tmp_path / "alone.cskc")
    rotten = MIXED[2].write(tmp_path, "rotten")
    rotten.write_bytes(rotten.read_bytes()[:-1] + bytes([rotten.read_bytes()[-1] ^ 4]))
    merged = tmp_path / "merged.cskc"
    fleet.merge(good, merged)
    other = MIXED[3].but(bundle="c" * 64).write(tmp_path)
    (tmp_path / "text.cskc").write_text("no file of ours")
    bad = {
        other: "is of bundle cccccccc…",
        rotten: "is damaged",
        merged: "is merged already",
        tmp_path / "text.cskc": "cannot be read",
    }
    out = tmp_path / "out.cskc"
    for files in ([*bad, *good], [*good, *bad]):
        report = fleet.merge(files, out, skip_broken=True)
        assert set(report.skipped) == set(map(str, bad))
        assert all(text in report.skipped[str(path)] for path, text in bad.items()), report.skipped
        assert report.devices == 2
        assert out.read_bytes() == (tmp_path / "alone.cskc").read_bytes()
    with pytest.raises(FleetError, match=r"There is nothing to merge.*is damaged"):
        fleet.merge([rotten], out, skip_broken=True)
    with pytest.raises(FleetError, match="only what was learned on one bundle"):
        fleet.merge([good[0], other], out, skip_broken=True)  # nobody knows which is meant


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    good = MIXED[0].write(tmp_path).read_bytes()
    path = tmp_path / "damaged.cskc"
    places = np.unique(np.linspace(0, len(good) - 1, 300).astype(int))
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(FleetError):
            fleet.inspect(path)
    for length in (0, 7, 8, 100, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(FleetError):
            fleet.merge([path], tmp_path / "m.cskc")


def restated(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(said: dict[str, Any]) -> None:
        one = json.loads(said["statements"][0]["text"])
        said["statements"][0]["text"] = json.dumps({**one, **fields})

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda said: said.update(min_reader=2), "it takes a csk-sdk that reads schema 2"),
        (lambda said: said.update(bundle="x"), "bundle must be the id of a bundle"),
        (lambda said: said.update(features=0), "features is 0, and must be from 1"),
        (lambda said: said.update(features=13), "a contribution is not one over 13 features"),
        (lambda said: said.update(statements=said["statements"] * 2), "two statements of one device"),
        (lambda said: said.update(same={"a\n": "b"}), "a name that is none"),
        (
            lambda said: said.update(same={"a": "b", "b": "a"}),
            "says that 'a' is another class, which is 'a' again",
        ),
        (lambda said: said["statements"][0].update(text='"\ud800"'), "statement is no JSON .it is no text."),
        (lambda said: [said], "must be an object"),
        (restated(sequence=0), "sequence is 0, and must be"),
        (restated(name="a\nb"), "has a name that is none"),
        (restated(bundle="c" * 64), "a statement about another bundle"),
        (restated(entries=[{"class": "x", "id": "0" * 64, "count": 1, "temperature": None}]), "are missing"),
        (
            restated(entries=[{"class": "x", "id": "0" * 64, "count": -1, "temperature": None}]),
            "must be above 0",
        ),
    ],
)
def test_what_a_file_says_is_checked(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], text: str
) -> None:
    path = edited(MIXED[0].write(tmp_path), change)
    said = refused_or_set_aside(path)
    assert re.search(text, said)
    assert len(said.splitlines()) == 1


def test_what_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    path = edited(MIXED[0].write(tmp_path), lambda said: None, fleet='"\ud800"')
    with pytest.raises(FleetError, match="it is damaged: its checksum does not match"):
        fleet.inspect(path)


def refused_or_set_aside(path: Path) -> str:
    """What is said of a file that cannot be merged, or of its device."""
    try:
        (said,) = fleet.merge([path], path.with_name("m.cskc")).quarantined.values()
    except FleetError as error:
        return str(error)
    return said


# Signatures


def test_signed_statements(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "ours")
    _, theirs = write_keys(tmp_path, "theirs")
    signed = MIXED[0].but(key=private, public=public)
    path = signed.write(tmp_path)
    assert [one["signed"] for one in fleet.inspect(path).devices.values()] == [True]
    assert fleet.merge([path], tmp_path / "m.cskc", trust=[public]).devices == 1
    with pytest.raises(FleetError, match=r"what device a \(.{8}\) says, signed by a key that is not trusted"):
        fleet.merge([path], tmp_path / "m.cskc", trust=[theirs])
    plain = MIXED[1].write(tmp_path)
    with pytest.raises(FleetError, match="signed by nobody"):
        fleet.merge([path, plain], tmp_path / "m.cskc", trust=[public])
    (tmp_path / "keys").mkdir()
    with pytest.raises(ConfigError, match="has no key in it"):
        fleet.merge([path], tmp_path / "m.cskc", trust=[tmp_path / "keys"])
    (tmp_path / "keys/a.pem").write_bytes(public.read_bytes())
    report = fleet.merge([path, plain], tmp_path / "m.cskc", trust=[tmp_path / "keys"], skip_broken=True)
    assert list(report.skipped) == [str(plain)]
    # What is signed cannot be changed, nor said in another's name.
    forged = edited(path, restated(sequence=9))
    with pytest.raises(FleetError, match=r"the signature of device .{8} does not match what it is of"):
        fleet.merge([forged], tmp_path / "m.cskc")

    # An unsigned statement, however new, does not take the place of a signed one.
    def unsigned(said: dict[str, Any]) -> None:
        restated(sequence=99, entries=[], sketches={})(said)
        said["statements"][0] |= {"key": "", "signature": ""}

    impostor = edited(path, unsigned)
    for order in ([path, impostor], [impostor, path]):
        assert fleet.merge(order, tmp_path / "m.cskc").classes == {"cat": 40.0, "dog": 40.0}


def test_a_merged_file_is_signed(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, "ours")
    path = MIXED[0].write(tmp_path)
    fleet.merge([path], tmp_path / "m.cskc", sign=private)
    found = fleet.inspect(tmp_path / "m.cskc")
    assert len(found.signed_by) == 64
    assert found.merged == {"cat": {"images": 40.0, "devices": 1}, "dog": {"images": 40.0, "devices": 1}}
    with pytest.raises(FleetError, match="its signature does not match"):
        fleet.inspect(
            edited(
                tmp_path / "m.cskc",
                lambda said: said.update(same={"x": "y"}),
                key=found.signed_by,
                signature="0" * 128,
            )
        )
