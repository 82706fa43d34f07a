"""Names that come from outside: of tasks and of classes, in any script."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from unicodedata import category, normalize

LONGEST = 1024
"""Characters of a class's name at most: every state keeps all of them."""


def is_plain(name: str) -> bool:
    """Whether a name is not blank or overlong, has no control character, and can be written as UTF-8.

    Python reads a file name that is not UTF-8 as one with lone surrogates. Control characters could drive a terminal.
    """
    return (
        bool(name.strip())
        and len(name) <= LONGEST
        and not any(category(character) in ("Cc", "Cs") for character in name)
    )


# A lesson asks for every name that is known.
@lru_cache(1 << 16)
def likeness(name: str) -> str:
    """What is the same for two names that a person takes for one: upper and lower case, spaces at the ends, accents.

    Unicode's canonical composition (NFC) and case folding.
    """
    return normalize("NFC", normalize("NFC", name).casefold()).strip()


def first_twin(names: Iterable[str], known: Iterable[str]) -> tuple[str, str] | None:
    """The first of `names` that differs only so from a known one or an earlier one, and that one; None where none does.

    A name that is known as it stands has no twin.
    """
    there = dict.fromkeys(known)
    alike: dict[str, str] = {}
    for name in there:
        alike.setdefault(likeness(name), name)
    for name in names:
        other = alike.setdefault(likeness(name), name)
        if other != name and name not in there:
            return name, other
    return None
