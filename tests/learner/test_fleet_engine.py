"""What a device and the server do in a round, and kits that are prepared: all that needs no NVFlare."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import ConfigError, FleetError, Learner, fleet
from csk_sdk.fleet.engine import kits, operator, prepare_device, prepare_server, run_round, sites, starting
from csk_sdk.fleet.engine.exchange import BUSY, Device, Server, Stopped
from csk_sdk.fleet.trusting import UntrustedError
from learner.test_fleet_https import device_key

RESOURCES = {
    "format_version": 2,
    "class_allow_list": ["a.b"],
    "components": [{"id": "process_launcher", "path": "nvflare.Launcher", "args": {}}],
}
ON_SERVER = {
    **RESOURCES,
    "snapshot_persistor": {"args": {"storage": {"args": {"root_dir": "/tmp/shared"}}}},
    "components": [{"id": "job_manager", "args": {"uri_root": "/tmp/shared"}}],
}


def kit(folder: Path, startup: str, resources: dict[str, Any]) -> Path:
    """As much of what NVFlare provisions as is read."""
    (folder / "startup").mkdir(parents=True)
    (folder / "local").mkdir()
    (folder / "startup" / startup).write_text("{}")
    (folder / "local" / "resources.json.default").write_text(json.dumps(resources))
    return folder


@pytest.fixture
def space(tmp_path: Path, digits_bundle: Path, digits: Digits) -> Path:
    """The workspace of a device that has learned two digits."""
    (tmp_path / "kitchen").mkdir()
    (tmp_path / "kitchen" / "bundle").symlink_to(digits_bundle)
    learner_of(tmp_path / "kitchen").learn(digits.task("01", (4, 5), train=40))
    return tmp_path / "kitchen"


def learner_of(space: Path) -> Learner:
    return open_learner(space / "bundle", space / "state", train="heads")


def device(space: Path, **how: Any) -> Device:
    site = sites.DeviceSite(str(space), **{"sign": None, "least": 20, "bits": 8, **how})
    return Device(site, "kitchen", lambda: False, lambda said: None)


def test_the_same_bytes_as_by_files(space: Path, tmp_path: Path) -> None:
    key = device_key(tmp_path, "kitchen", tmp_path / "keys")
    place = tmp_path / "server" / "merged.cskc"
    site = sites.ServerSite(str(tmp_path / "inbox"), (str(tmp_path / "keys"),), str(place), None, None)
    server, ours = Server(site), device(space, sign=str(key))
    sent = ours.contribute()
    fleet.export(learner_of(space), tmp_path / "own.cskc", name="kitchen", sign=key)
    assert sent == (tmp_path / "own.cskc").read_bytes()
    assert [server.receive(sent).status for _ in range(2)] == ["new", "same"]
    report = server.merge({}, (), ())
    assert (report.devices, sorted(report.classes)) == (1, sorted([NAMES[4], NAMES[5]]))
    fleet.merge([tmp_path / "own.cskc"], tmp_path / "files.cskc")
    assert server.merged() == (tmp_path / "files.cskc").read_bytes()
    assert ours.take(server.merged()).changed
    assert not ours.take(server.merged()).changed

    with pytest.raises(UntrustedError, match="signed by nobody"):
        server.receive(device(space).contribute())
    with pytest.raises(FleetError, match=r"cannot be read as a \.cskc file"):
        server.receive(sent[:-1])
    # Damage in the inbox costs what is damaged, and no round.
    (kept,) = (tmp_path / "inbox").glob("*.cskc")
    kept.write_bytes(sent[:-1])
    with pytest.raises(FleetError, match="nothing to merge"):
        server.merge({}, (), ())
    assert server.merged() == (tmp_path / "files.cskc").read_bytes()


def test_a_device_that_learns_is_waited_for(space: Path) -> None:
    said: list[str] = []
    heard, over = threading.Event(), threading.Event()

    def say(one: str) -> None:
        said.append(one)
        heard.set()

    ours = Device(sites.DeviceSite(str(space), None, 20, 8), "kitchen", over.is_set, say)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(ours.contribute()))
    with learner_of(space).state.lock():
        thread.start()
        assert heard.wait(60)
        assert not got
    thread.join(60)
    assert (len(got), said) == (1, [BUSY])
    over.set()
    with learner_of(space).state.lock(), pytest.raises(Stopped, match="learning until the round was over"):
        ours.contribute()


def test_a_device_s_kit(space: Path, tmp_path: Path) -> None:
    key = device_key(tmp_path, "kitchen", tmp_path / "keys")
    made = kit(tmp_path / "kit", "fed_client.json", RESOURCES)
    prepare_device(made, space, sign=key, least=30)
    resources = json.loads((made / "local" / "resources.json").read_text())
    assert resources["class_allow_list"] == [kits.DEVICE_CLASS]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert [one["path"] for one in resources["components"]] == [kits.LAUNCHER_CLASS]
    rights = json.loads((made / "local" / "authorization.json").read_text())["permissions"]
    assert list(rights) == ["project_admin"]
    assert {rights["project_admin"][one] for one in ("byoc", "shell_commands", "download_job")} == {"none"}
    found = sites.read_device(made / "local")
    assert (found.workspace, found.sign, found.least, found.bits) == (str(space), str(key), 30, 8)
    with pytest.raises(ConfigError, match=r"role is \"device\", and must be one of server"):
        sites.read_server(made / "local")


def test_the_server_s_kit(digits_bundle: Path, tmp_path: Path) -> None:
    device_key(tmp_path, "kitchen", tmp_path / "keys")
    made = kit(tmp_path / "kit", "fed_server.json", ON_SERVER)
    prepare_server(
        made, tmp_path / "in", tmp_path / "out.cskc", trust=(tmp_path / "keys",), bundle=digits_bundle
    )
    resources = json.loads((made / "local" / "resources.json").read_text())
    assert resources["class_allow_list"] == [kits.ROUND_CLASS]
    assert "/tmp/shared" not in json.dumps(resources)
    found = sites.read_server(made / "local")
    assert (found.inbox, found.sign) == (str(tmp_path / "in"), None)
    assert found.bundle == open_learner(digits_bundle, tmp_path / "state").bundle.id


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda t, s: prepare_device(t / "none", s), "is not what `nvflare provision` writes for a device"),
        (lambda t, s: prepare_device(t / "server", s), "it has no startup/fed_client.json"),
        (lambda t, s: prepare_device(t / "device", t / "nowhere"), "There is no folder"),
        (lambda t, s: prepare_device(t / "device", s, sign=t / "keys"), "keys"),
        (
            lambda t, s: prepare_server(t / "device", t, t / "m", trust=(t / "keys",)),
            "it has no startup/fed_server.json",
        ),
        (
            lambda t, s: prepare_server(t / "server", t, t / "m", trust=(t / "empty",)),
            "has no key in it",
        ),
        (
            lambda t, s: prepare_device(t / "bare", s),
            "resources.json.default is not what this NVFlare provisions",
        ),
        (
            lambda t, s: prepare_server(t / "bare", t, t / "m", trust=(t / "keys",)),
            "resources.json.default is not what this NVFlare provisions (KeyError: 'snapshot_persistor')",
        ),
        (lambda t, s: run_round(t / "device"), "is not what `nvflare provision` writes for an operator"),
        (lambda t, s: run_round(t / "operator", only="both"), "only is 'both', and must be 'contribute' or"),
        (lambda t, s: run_round(t / "operator", wait=0), "wait must be from 1"),
        (lambda t, s: starting.start(t / "device"), "was not prepared"),
    ],
)
def test_what_does_not_fit(
    space: Path, tmp_path: Path, do: Callable[[Path, Path], object], words: str
) -> None:
    kit(tmp_path / "device", "fed_client.json", RESOURCES)
    kit(tmp_path / "server", "fed_server.json", ON_SERVER)
    kit(tmp_path / "operator", "fed_admin.json", RESOURCES)
    (tmp_path / "operator" / "startup" / "fed_admin.json").write_text('{"admin": {"username": "me"}}')
    kit(tmp_path / "bare", "fed_client.json", {"format_version": 2})
    (tmp_path / "bare" / "startup" / "fed_server.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    device_key(tmp_path, "kitchen", tmp_path / "keys")
    with pytest.raises(ConfigError, match=re.escape(words)):
        do(tmp_path, space)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"least": -7}, "least is -7, and must be a whole number of images, 1 or more."),
        ({"least": 0}, "least is 0, and must be a whole number of images, 1 or more."),
        ({"bits": 16}, "bits is 16, and must be 4 or 8."),
        ({"bits": 5}, "bits is 5, and must be 4 or 8."),
    ],
)
def test_what_no_export_takes_is_refused_at_once(
    space: Path, tmp_path: Path, how: dict[str, int], words: str
) -> None:
    made = kit(tmp_path / "kit", "fed_client.json", RESOURCES)
    with pytest.raises(FleetError, match=re.escape(words)):
        prepare_device(made, space, **how)  # type: ignore[arg-type]
    assert [one.name for one in (made / "local").iterdir()] == ["resources.json.default"]


def test_what_export_takes_is_what_a_kit_says(space: Path, tmp_path: Path) -> None:
    made = kit(tmp_path / "kit", "fed_client.json", RESOURCES)
    prepare_device(made, space, least=2_000_000, bits=4)
    assert sites.read_device(made / "local").least == 2_000_000


def test_without_its_extra(tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvflare", "nvflare.fuel.flare_api.flare_api"):
        monkeypatch.setitem(sys.modules, name, None)
    kit(tmp_path / "operator", "fed_admin.json", RESOURCES)
    (tmp_path / "operator" / "startup" / "fed_admin.json").write_text('{"admin": {"username": "me"}}')
    with pytest.raises(ConfigError, match=re.escape(operator.MISSING)):
        run_round(tmp_path / "operator")
    made = kit(tmp_path / "device", "fed_client.json", RESOURCES)
    (made / "startup" / "sub_start.sh").write_text("true")
    prepare_device(made, space)
    with pytest.raises(ConfigError, match=re.escape(operator.MISSING)):
        starting.start(made)


def test_nothing_of_it_is_loaded_before_a_round() -> None:
    code = (
        "import sys, csk_sdk, csk_sdk.fleet, csk_sdk.cli.commands, csk_sdk.fleet.engine\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'nvflare'])\n"
        "import subprocess\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    device_only = "import sys, csk_sdk.cli.fleet\nprint('csk_sdk.fleet.engine' in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", device_only], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
