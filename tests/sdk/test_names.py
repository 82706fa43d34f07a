"""Names that a person takes for one."""

import pytest

from csk_sdk.formats.names import first_twin, likeness

ALIKE = [
    ("Bus", "bus"),
    ("lamp ", "lamp"),
    ("\u00e9clair", "e\u0301clair"),
    ("STRASSE", "straße"),
    ("\u3000ΣΊΣΥΦΟΣ", "σίσυφος"),
]
UNLIKE = [("ilik", "ılık"), ("lamp", "lamps"), ("e", "é"), ("a b", "ab")]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_case_spaces_and_the_form_of_accents_make_no_other_name(one, other):
    assert likeness(one) == likeness(other)
    assert first_twin([one], [other]) == (one, other)
    assert first_twin([other, one], []) == (one, other)
    # Both are known already, as on a device of before.
    assert first_twin([one], [other, one]) is None


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_other_names_stay_others(one, other):
    assert first_twin([one], [other]) is None


def test_a_name_that_is_known_has_no_twin():
    assert first_twin(["bus", "tram"], ["tram", "bus"]) is None
