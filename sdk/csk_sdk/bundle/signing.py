"""Signed bundles: an ed25519 signature over the manifest, which holds the sha256 of every other file.

Needs the extra `[signing]` (the package `cryptography`), on the workstation that signs and on the device that checks.
Keys are PEM files as OpenSSL writes them:

    openssl genpkey -algorithm ed25519 -out bundle-key.pem          stays with you
    openssl pkey -in bundle-key.pem -pubout -out bundle-trust.pem   goes onto the devices
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from csk_sdk.errors import BundleError, ConfigError
from csk_sdk.formats.opening import open_file, read_file

SIGNATURE = "manifest.sig"
# Signed with the manifest, so that a signature made for something else is none for a bundle.
_PURPOSE = b"csk-sdk bundle manifest, signature scheme 1\n"
_LARGEST_KEY_FILE = 64 << 10


def sign(manifest: bytes, key: Path) -> bytes:
    """The content of `manifest.sig`: 64 bytes, the signature of `manifest` by the private key in the PEM file `key`.

    Raises ConfigError when it is not an unencrypted ed25519 private key.
    """
    signature: bytes = private_key(key).sign(_PURPOSE + manifest)
    return signature


def check_signature(folder: Path, manifest: bytes, trust: Path) -> None:
    """Raise BundleError unless `folder` holds the signature of `manifest` by the holder of the key in `trust`.

    `trust` is a PEM file with an ed25519 public key. Raises ConfigError when it is not.
    """
    key = _public_key(trust)
    try:
        with open_file(folder / SIGNATURE, folder) as file:
            signature = file.read(65)
    except FileNotFoundError:
        raise BundleError(
            f"The bundle in {folder} is not signed, and this device trusts only bundles signed by the key of {trust}. "
            "Build it with `csk-sdk build-artifacts --sign KEY`."
        ) from None
    except OSError as error:
        raise BundleError(f"{folder / SIGNATURE} cannot be read ({error.strerror}).") from None
    try:
        key.verify(signature, _PURPOSE + manifest)
    except _cryptography().exceptions.InvalidSignature:
        raise BundleError(
            f"The bundle in {folder} is not signed by the key of {trust}: the signature does not match. "
            "Do not use it; get the bundle again from whoever built it."
        ) from None


def fingerprint(trust: Path) -> str:
    """The sha256, hexadecimal, of the public key in the PEM file `trust`. Raises ConfigError when it is none."""
    raw: bytes = _public_key(trust).public_bytes_raw()
    return hashlib.sha256(raw).hexdigest()


def private_key(path: Path) -> Any:
    """The ed25519 private key in a PEM file. Raises ConfigError when it is none, or has a password."""
    library = _cryptography()
    try:
        key = library.serialization.load_pem_private_key(_key_file(path), None)
    except TypeError:
        raise ConfigError(f"The key {path} has a password: give a key file without one.") from None
    except (ValueError, library.exceptions.UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a private key in PEM form: {_MAKE_ONE}") from None
    if not isinstance(key, library.ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an ed25519 key: {_MAKE_ONE}")
    return key


def sign_text(purpose: str, text: str, key: Path) -> tuple[str, str]:
    """The public key and its signature of `text`, both hexadecimal, by the private key in the PEM file `key`.

    What is signed for one `purpose` is signed for no other. Raises ConfigError as `sign` does.
    """
    private = private_key(key)
    return _raw(private), private.sign(_signed(purpose, text)).hex()


def is_signature(purpose: str, text: str, key: str, signature: str) -> bool:
    """Whether `signature` is that of `text`, for this purpose, by the holder of the public key `key`, as hexadecimal.

    Raises ConfigError without the extra.
    """
    library = _cryptography()
    try:
        public = library.ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), _signed(purpose, text))
    except (ValueError, library.exceptions.InvalidSignature):
        return False
    return True


def raw_public_key(path: Path) -> str:
    """The public key in a PEM file, 64 hexadecimal digits. Raises ConfigError when it is none."""
    raw: bytes = _public_key(path).public_bytes_raw()
    return raw.hex()


def raw_public_key_of(key: Path) -> str:
    """The public key of the private one in a PEM file, 64 hexadecimal digits. Raises ConfigError as `sign` does."""
    return _raw(private_key(key))


def _raw(private: Any) -> str:
    raw: bytes = private.public_key().public_bytes_raw()
    return raw.hex()


def _signed(purpose: str, text: str) -> bytes:
    return f"csk-sdk {purpose}, signature scheme 1\n{text}".encode()


def _public_key(path: Path) -> Any:
    library = _cryptography()
    try:
        key = library.serialization.load_pem_public_key(_key_file(path))
    except (ValueError, library.exceptions.UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a public key in PEM form: {_EXTRACT}") from None
    if not isinstance(key, library.ed25519.Ed25519PublicKey):
        raise ConfigError(f"{path} is not an ed25519 key: {_EXTRACT}")
    return key


_MAKE_ONE = "make one with `openssl genpkey -algorithm ed25519 -out key.pem`."
_EXTRACT = "make it with `openssl pkey -in key.pem -pubout -out trust.pem`."


def _key_file(path: Path) -> bytes:
    try:
        return read_file(path, _LARGEST_KEY_FILE)
    except OSError as error:
        raise ConfigError(f"The key {path} cannot be read ({error.strerror}).") from None


class _Library:
    """The parts of `cryptography` that are used."""

    def __init__(self) -> None:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self.exceptions = exceptions
        self.serialization = serialization
        self.ed25519 = ed25519


def _cryptography() -> _Library:
    try:
        return _Library()
    except ImportError:
        raise ConfigError(
            "Signed bundles need the extra 'signing': pip install 'csk-sdk[signing]'."
        ) from None
