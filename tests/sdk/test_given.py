"""What applications hand over, and how it is refused: in one sentence, whatever type it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.formats.given import array_of, flag_of, items_of, names_of, path_of, paths_of, texts_of

POINT = np.array("one")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: path_of(7, "bundle"), "bundle is an int, and must be a path: a string or a pathlib.Path."),
        (
            lambda: path_of("", "bundle"),
            "bundle is a path that is empty: ''. Give the path of a file or folder.",
        ),
        (lambda: path_of("a\0b", "bundle"), "bundle is a path that is with a zero in it: 'a\\x00b'."),
        (lambda: path_of("a" * 5000, "bundle"), "bundle is a path that is too long: 'aaa"),
        (lambda: paths_of("one", "files"), "files is a str, and must be a list of paths."),
        (lambda: paths_of(POINT, "files"), "and must be a list of paths."),
        (lambda: paths_of(["a", 7], "files"), "files[1] is an int, and must be a path"),
        (lambda: texts_of({"a": 1}, "names", ConfigError), "and must be a list of strings."),
        (lambda: texts_of(POINT, "names", ConfigError), "and must be a list of strings."),
        (lambda: texts_of(["a", True], "names", ConfigError), "names[1] is a bool, and must be a string."),
        (lambda: names_of([1, True], "names", ConfigError), "names[1] is a bool, and must be a string."),
        (lambda: names_of(POINT, "names", ConfigError), "and must be a list of strings."),
        (lambda: flag_of(1, "replace"), "replace is an int, and must be True or False."),
    ],
)
def test_what_it_is_and_what_it_must_be(given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class Once:
    """Says that it gives items, and does not."""

    def __iter__(self) -> Any:
        raise TypeError("not today")


@pytest.mark.parametrize("values", [7, {"a": 1}, Once()])
def test_images_that_are_no_images(values: Any) -> None:
    with pytest.raises(TaskError, match=r"^images is .*, and must be an array, or a list of arrays"):
        items_of(values, "images")


def test_arrays_of_several_shapes() -> None:
    with pytest.raises(TaskError, match=r"^images holds arrays of several shapes, and needs one for all"):
        array_of([np.zeros((2, 2)), np.zeros((3, 2))], "images")
    assert array_of((row for row in np.eye(2)), "images").tolist() == [[1, 0], [0, 1]]


def test_names_and_paths_of_whatever_gives_them() -> None:
    assert names_of(np.array([3, 5]), "names", ConfigError) == ["3", "5"]
    assert texts_of((name for name in "ab"), "names", ConfigError) == ("a", "b")
    assert paths_of(iter(["a", Path("b")]), "files") == [Path("a"), Path("b")]
