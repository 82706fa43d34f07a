"""All attacks, in the order in which their promises stand in the docs."""

from __future__ import annotations

from field.attack import (
    cameras,
    commits,
    damaged,
    disks,
    executed,
    finite,
    handed,
    intruders,
    kinds,
    lost,
    places,
    revealed,
    threads,
    users,
)
from field.attack.promise import PROMISES as _REGISTERED
from field.attack.promise import ROOT, Promise, plain

MODULES = (
    cameras,
    commits,
    damaged,
    disks,
    executed,
    finite,
    handed,
    intruders,
    kinds,
    lost,
    places,
    revealed,
    threads,
    users,
)


def _stands_at(promise: Promise) -> tuple[str, int]:
    text = plain((ROOT / promise.page).read_text(encoding="utf-8"))
    return promise.page, text.find(promise.says[0])


PROMISES = {promise.name: promise for promise in sorted(_REGISTERED.values(), key=_stands_at)}
