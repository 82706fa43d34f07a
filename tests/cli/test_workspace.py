"""Where a workspace's parts are, and what csk.toml may say."""

import pytest

from csk_sdk.config import TrainingConfig
from csk_sdk.errors import ConfigError
from csk_sdk.workspace.folder import KEEP, Workspace


def test_defaults(tmp_path):
    space = Workspace.open(tmp_path)
    assert (space.bundle, space.state, space.tasks) == tuple(
        tmp_path / n for n in ("bundle", "state", "tasks")
    )
    assert (space.config, space.keep) == (TrainingConfig(), KEEP)


def test_parts_can_be_elsewhere(tmp_path):
    space = Workspace.open(tmp_path, state=tmp_path / "a", tasks=tmp_path / "b")
    assert (space.bundle, space.state, space.tasks) == tuple(tmp_path / n for n in ("bundle", "a", "b"))


def test_settings(tmp_path):
    (tmp_path / "csk.toml").write_text(
        '[training]\nepochs = 7\nflip = false\noptimizer = "adamw"\n[state]\nkeep = 2\n'
    )
    space = Workspace.open(tmp_path)
    assert space.config == TrainingConfig(epochs=7, flip=False, optimizer="adamw")
    assert space.keep == 2


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[training", "is not valid TOML"),
        ("training = 3", "write it as a table, [training]"),
        (
            "[learning]\nepochs = 1",
            "has 'learning', which is no table of it. Known: [training], [state], [bundle], [data], [runtime].",
        ),
        ("[training]\nepoch = 1", "sets 'epoch', which is no setting"),
        ("[training]\nepochs = 0", "epochs is 0; it must be a whole number, 1 or more"),
        ('[training]\nepochs = "3"', "epochs is '3'; it must be a whole number, 1 or more"),
        ("[state]\nkeep = true", "sets keep to True"),
        ("[state]\nkept = 3", "sets 'kept' in [state], which is no setting"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, text, error):
    (tmp_path / "csk.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        Workspace.open(tmp_path)
    assert error in str(raised.value)
    assert "csk.toml" in str(raised.value)


def test_there_must_be_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="There is no folder"):
        Workspace.open(tmp_path / "nowhere")


def test_keep_reaches_the_state(run, learned):
    (learned / "csk.toml").write_text("[training]\nepochs = 1\nthreads = 1\n[state]\nkeep = 1\n")
    run("rollback", "--to", "01-four-five", "--workspace", learned)
    assert run("train", "--workspace", learned, "--no-evaluate").status == 0
    stored = sorted(path.name for path in (learned / "state/generations").glob("*.safetensors"))
    assert stored == ["000001.safetensors", "000003.safetensors"]
