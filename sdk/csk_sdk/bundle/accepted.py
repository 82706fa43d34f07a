"""Which signed bundles a device has accepted: older ones of the same key are refused from then on.

A signature does not expire. So what is signed holds a counter that grows from bundle to bundle, and `accepted.json` in
the state folder the highest that was seen, for each key, beside the ids of older ones that the owner allowed. A bundle
without a counter, of an older csk-sdk, counts as 0.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from csk_sdk.bundle.folder import Bundle
from csk_sdk.bundle.signing import fingerprint
from csk_sdk.errors import BundleError, StateError, StateLockedError, StorageError
from csk_sdk.state.atomic import exists, replace_file
from csk_sdk.state.lock import StateLock
from csk_sdk.state.sealing import seal, unseal

ACCEPTED = "accepted.json"
_MOST_ALLOWED = 16


@dataclass(frozen=True)
class _Seen:
    """Of one key: the highest counter, and the identities of older bundles that the owner has allowed.

    `more` is what a newer csk-sdk says of it, kept as it is.
    """

    highest: int = 0
    allowed: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def refuses(self, bundle: Bundle) -> bool:
        return bundle.manifest.counter < self.highest and bundle.id not in self.allowed

    def with_bundle(self, bundle: Bundle) -> _Seen:
        if bundle.manifest.counter >= self.highest:
            return replace(self, highest=bundle.manifest.counter)
        others = [one for one in self.allowed if one != bundle.id]
        return replace(self, allowed=(*others, bundle.id)[-_MOST_ALLOWED:])

    def to_json(self) -> dict[str, Any]:
        return {**self.more, "highest": self.highest, "allowed": list(self.allowed)}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> _Seen:
        more = {name: value for name, value in raw.items() if name not in ("highest", "allowed")}
        return cls(int(raw["highest"]), tuple(raw["allowed"]), more)


def check_age(bundle: Bundle, trust: Path | str, state: Path) -> None:
    """Raise BundleError where the device whose state folder is `state` has accepted a newer bundle of the key `trust`.

    Raises StateError where what it remembers is damaged.
    """
    seen = _read(state).get(fingerprint(Path(trust)), _Seen())
    if seen.refuses(bundle):
        raise BundleError(
            f"The bundle in {bundle.folder} is older than one that this device has accepted: its counter is "
            f"{bundle.manifest.counter}, and {seen.highest} was seen. Get the newest one; or, if you want this one, "
            "run `csk-sdk verify --allow-older` once."
        )


def accept(bundle: Bundle, trust: Path | str, state: Path, allow_older: bool = False) -> None:
    """`check_age`, and remember the bundle if it is newer than all before, or `allow_older`, which accepts it for good.

    Where the state cannot be written, or is being written, a newer bundle is remembered next time. Raises as
    `check_age` does; with `allow_older` StorageError and StateLockedError instead.
    """
    if allow_older:
        _remember(bundle, trust, state, forget_damage=True)
        return
    check_age(bundle, trust, state)
    seen = _read(state).get(fingerprint(Path(trust)), _Seen())
    if bundle.manifest.counter > seen.highest:
        with suppress(StorageError, StateLockedError):
            _remember(bundle, trust, state)


def _remember(bundle: Bundle, trust: Path | str, state: Path, forget_damage: bool = False) -> None:
    with StateLock(state):
        try:
            keys, more = _read(state), _others(state)
        except StateError:
            if not forget_damage:
                raise
            keys, more = {}, {}
        key = fingerprint(Path(trust))
        keys[key] = keys.get(key, _Seen()).with_bundle(bundle)
        content = {name: one.to_json() for name, one in keys.items()}
        replace_file(state / ACCEPTED, seal({**more, "schema_version": 1, "keys": content}))


def _read(state: Path) -> dict[str, _Seen]:
    path = state / ACCEPTED
    if not exists(path):
        return {}
    try:
        raw: Any = unseal(path)
        return {str(key): _Seen.from_json(one) for key, one in raw["keys"].items()}
    except (StateError, KeyError, TypeError, ValueError, AttributeError) as error:
        # Never taken for "nothing seen": whoever can damage it could then put an older bundle here.
        raise StateError(
            f"{path}, which says what signed bundles were accepted, is damaged ({error}). Restore it from a backup; "
            "or, if this bundle is the newest one, run `csk-sdk verify --allow-older` once."
        ) from None


def _others(state: Path) -> dict[str, Any]:
    """What a newer csk-sdk says in that file beside the keys. Raises StateError where it is damaged."""
    raw = unseal(state / ACCEPTED) if exists(state / ACCEPTED) else {}
    return {name: value for name, value in raw.items() if name not in ("schema_version", "keys")}
