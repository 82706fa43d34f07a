"""All attacks, in the order in which their promises stand in the docs."""

from __future__ import annotations

from importlib import import_module

from field.attack.promise import PROMISES as _REGISTERED
from field.attack.promise import ROOT, Promise, plain

# Each registers its promises when it is imported.
MODULES = (
    "cameras",
    "commits",
    "damaged",
    "disks",
    "executed",
    "finite",
    "handed",
    "intruders",
    "kinds",
    "lost",
    "places",
    "receivers",
    "revealed",
    "shared",
    "threads",
    "users",
)
for _module in MODULES:
    import_module(f"field.attack.{_module}")


def _stands_at(promise: Promise) -> tuple[str, int]:
    text = plain((ROOT / promise.page).read_text(encoding="utf-8"))
    return promise.page, text.find(promise.says[0])


PROMISES = {promise.name: promise for promise in sorted(_REGISTERED.values(), key=_stands_at)}
