"""Every command explains itself, the same way on a terminal and in a pipe."""

import inspect

import pytest

from csk_sdk.cli import learning
from csk_sdk.cli.commands import functions
from csk_sdk.contract.settings import SETTINGS

# Each command's arguments and options, those of every device command left out.
WORKSPACE = {"--workspace", "--bundle", "--state", "--trust"}
OPTIONS = {
    "try": """MODEL --base-data --classes --mean --std --input-size --output --sites --trainable --features
        --channel-ratio --batch-size --memory-budget --precision --loss --json""",
    "build-artifacts": """MODEL --out --base-data --classes --mean --std --resize --sample-rate --flip --no-flip --sites
        --trainable --intensity-data --channel-ratio --batch-size --precision --loss --backend
        --head-capacity --memory-budget --sign --overwrite --upgrade-from --json""",
    "analyze": """MODEL DATA --classes --mean --std --sites --images --batch-size --by-training --picture
        --threads --json""",
    "inspect": "BUNDLE --json",
    "train": """--tasks --task --epochs --seconds --flops --seed --batch-size --learning-rate --head-learning-rate
        --optimizer --energy --channel-ratio --label-smoothing --class-statistics --no-class-statistics --label-check
        --no-label-check --max-forgetting --on-forgetting --threads --backend --no-evaluate
        --precision --prefix-cache --prefix-views --replace --add --json""",
    "adapt": "NAME [FILE]... --replace --remove --json",
    "watch": "--settle --poll --once --nice --when --threads --tasks --json",
    "pause": "--workspace --tasks",
    "resume": "--workspace --tasks",
    "status": "--count --no-count --tasks --json",
    "tasks": "--tasks --json",
    "evaluate": "--tasks --scenario --json",
    "predict": "FILE... --task --top --json",
    "export": "--out --task --overwrite",
    "report": "--out --overwrite",
    "rollback": "--to --yes",
    "forget": "[CLASS]... --task --yes --json",
    "rename": "OLD NEW",
    "merge": "CLASS OTHER",
    "upgrade": "[NEW_BUNDLE] --back --relearn --no-relearn --yes --tasks --json",
    "doctor": "--tasks --json",
    "verify": "--repair --json",
    "demo": "--out --json",
    "fleet export": "OUT.cskc --least --bits --name --sign --json",
    "fleet merge": "FILE... --out --same --without --accept --trust --keep-apart --skip-broken --sign --json",
    "fleet apply": "FILE --json",
    "fleet inspect": "FILE --json",
    "fleet serve": "FOLDER --trust --merged --bundle --token --certificate --key --host --port",
    "fleet prepare": "KIT --workspace --least --bits --inbox --merged --trust --bundle --sign",
    "fleet start": "KIT",
    "fleet round": "KIT --wait --enough --grace --only --same --without --accept --json",
}
ANYWHERE = {
    "try", "build-artifacts", "analyze", "pause", "resume", "inspect", "demo", "fleet merge", "fleet inspect",
    "fleet serve", "fleet prepare", "fleet start", "fleet round",
}  # fmt: skip


def test_every_command_has_a_row():
    assert list(functions()) == list(OPTIONS)
    assert all(function.__doc__ for function in functions().values())


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option_and_shows_an_example(run, command):
    *group, name = command.split()
    done = run(*group, name, "--help")
    assert (done.status, done.err) == (0, "")
    expected = set(OPTIONS[command].split()) | (set() if command in ANYWHERE else WORKSPACE)
    assert {option for option in expected if option not in done.out} == set()
    assert f"Example:  csk-sdk {command}" in done.out
    assert "\x1b" not in done.out
    summary = done.out.splitlines()[2].strip()
    # Short enough that the list of commands shows it whole.
    assert summary.endswith(".")
    assert summary in run(*group, "--help").out


def test_version(run):
    assert run("--version").out.startswith("csk-sdk 0.")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonsense"], "No such command"),
        (["train", "--nonsense"], "No such option"),
        (["train", "--epochs", "two"], "--epochs"),
        (["train", "--optimizer", "lbfgs"], "--optimizer"),
        (["evaluate", "--scenario", "domain"], "--scenario"),
        (["predict"], "Missing argument"),
        (["predict", "a.png", "--top", "0"], "--top"),
        (["rollback"], "--to"),
        (["export"], "--out"),
        (["build-artifacts", "m.onnx"], "--out"),
        (["build-artifacts", "m.onnx", "--out", "b", "--mean", "a,b"], "'a,b' is no list of numbers"),
        (["build-artifacts", "m.onnx", "--out", "b", "--resize", "cubic"], "--resize"),
        (["build-artifacts", "m.onnx", "--out", "b", "--sites", "2x2"], "--sites"),
        (["analyze", "m.onnx"], "DATA"),
        (["analyze", "m.onnx", "d.npz", "--images", "0"], "--images"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(run, arguments, text):
    done = run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert text in done.err
    assert "\x1b" not in done.err


def test_a_setting_out_of_range_is_wrong_usage(run, workspace):
    done = run("train", "--workspace", workspace, "--epochs", "0")
    assert done.status == 2
    assert "epochs is 0; it must be a whole number, 1 or more." in " ".join(done.err.split())


def test_help_shows_every_default_and_bound(run):
    text = " ".join(run("train", "--help").out.split())
    options = [name for name in inspect.signature(learning.train).parameters if name in SETTINGS]
    assert len(options) > 25
    for name in options:
        one = SETTINGS[name]
        _, found, after = text.partition(f" --{name.replace('_', '-')} ")
        assert found, name
        own = after[: after.index("Default: ") + 100]
        if one.default is not None and one.type != "boolean":
            assert f"Default: {one.shown_default}." in own, name
        if one.bounds and name != "memory_budget":
            assert f"{one.rule[0].upper()}{one.rule[1:]}" in own, name


def test_an_option_out_of_bounds_is_wrong_usage(run):
    done = run("train", "--energy", "1.5")
    assert done.status == 2
    assert "energy is 1.5; it must be between 0 and 1." in " ".join(done.err.split())
