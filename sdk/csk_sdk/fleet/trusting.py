"""Whose files are taken: public keys, and what was signed by one of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from csk_sdk.bundle.signing import raw_public_key
from csk_sdk.errors import ConfigError, FleetError
from csk_sdk.fleet.files import FleetFile
from csk_sdk.formats.given import paths_of
from csk_sdk.state.atomic import names_in


class UntrustedError(FleetError):
    """Nobody who is trusted signed it."""


def trusted_keys(trust: Iterable[Path | str]) -> frozenset[str]:
    """The public keys in PEM files, and in the `*.pem` of folders. Raises ConfigError for one that is none."""
    found = set()
    for path in paths_of(trust, "trust"):
        inside = [path / name for name in sorted(names_in(path)) if name.endswith(".pem")]
        if path.is_dir() and not inside:
            raise ConfigError(f"{path} has no key in it: put the devices' public keys there, as NAME.pem.")
        found |= {raw_public_key(one) for one in inside or [path]}
    return frozenset(found)


def require_signed(file: FleetFile, trusted: frozenset[str]) -> FleetFile:
    """Raise UntrustedError where a device's statement is not signed by one of the `trusted` keys, if there are any."""
    for one in file.content.statements if trusted else ():
        if one.key not in trusted:
            how = "by a key that is not trusted" if one.key else "by nobody"
            raise UntrustedError(
                f"{file.path} has what device {one.shown} says, signed {how}. Leave it out, or name its public key "
                "with `--trust`."
            )
    return file
