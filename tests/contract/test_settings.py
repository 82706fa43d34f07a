"""Settings say what `settings.json` says: the checks beside `jsonschema`, the fields, the options, the sentences."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from make_settings import said, values

from csk_sdk import TrainingConfig
from csk_sdk.contract.manifest import PRECISIONS
from csk_sdk.contract.settings import SENTENCE, SETTINGS
from csk_sdk.errors import ConfigError
from csk_sdk.network.profiles import PROFILES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = json.loads((ROOT / "sdk" / "csk_sdk" / "contract" / "settings.json").read_text())
each = pytest.mark.parametrize("name", SETTINGS)


def test_the_contract_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate({name: one.default for name, one in SETTINGS.items()}, SCHEMA)
    for one in SETTINGS.values():
        assert (one.default is None) == bool(one.unset)
        assert not one.source or (ROOT / "docs" / "decisions" / f"{one.source}.md").exists()


@each
def test_a_value_is_refused_where_jsonschema_refuses_it(name: str) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for value in (*values(SETTINGS[name]), None):
        # JSON Schema takes 4.0 for a whole number; a file of settings that says so is refused.
        whole = SETTINGS[name].type == "integer" and isinstance(value, float)
        right = validator.is_valid({name: value}) and not whole
        assert SETTINGS[name].allows(value) == right, value


@each
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_numbers_beyond_all_bounds_are_refused(name: str, value: Any) -> None:
    one = SETTINGS[name]
    assert one.allows(value) == (one.type == "integer" and value == 10**400 and "maximum" not in one.bounds)


@each
def test_a_config_has_the_setting_and_says_the_sentence(name: str) -> None:
    one = SETTINGS[name]
    assert getattr(TrainingConfig(), name) == one.default
    assert type(getattr(TrainingConfig(), name)) is type(one.default)
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(**{name: []})
    assert str(caught.value) == SENTENCE.format(name=name, value="[]", rule=one.rule)


def test_numpys_scalars_are_plain_numbers() -> None:
    given = {"learning_rate": np.float32(0.5), "epochs": np.int64(3), "flip": np.bool_(True)}
    config = TrainingConfig(**given)
    plain = {name: getattr(config, name) for name in given}
    assert plain == {"learning_rate": 0.5, "epochs": 3, "flip": True}
    assert [type(value) for value in plain.values()] == [float, int, bool]
    assert json.loads(json.dumps(config.to_json()))["epochs"] == 3
    with pytest.raises(ConfigError, match=r"learning_rate is -0\.5; it must be"):
        TrainingConfig(learning_rate=np.float32(-0.5))


def test_the_fields_are_the_settings() -> None:
    assert [field.name for field in fields(TrainingConfig)] == list(SETTINGS)


def test_choices_are_those_that_exist() -> None:
    assert SETTINGS["precision"].choices == ("auto", *PRECISIONS)
    assert SETTINGS["profile"].choices == tuple(PROFILES)


def test_both_languages_are_held_to_the_same_sentences() -> None:
    kept = json.loads((HERE / "settings.json").read_text())
    assert kept == [row for one in SETTINGS.values() for row in said(one)], "run make_settings.py"
