"""Names that come from outside: of tasks and of classes, in any script."""

from __future__ import annotations

from unicodedata import category

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
