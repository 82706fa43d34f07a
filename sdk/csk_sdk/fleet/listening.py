"""`fleet serve`: the application of `fleet.serving` on an address, with TLS (uvicorn)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ConfigError
from csk_sdk.fleet.serving import MISSING, MOST_AT_ONCE, application
from csk_sdk.formats.opening import read_file

if TYPE_CHECKING:
    from starlette.applications import Starlette

_LARGEST_TOKEN = 4096
_LEAST_TOKEN = 16
_LAST_PORT = 65535


@dataclass(frozen=True)
class Site:
    """What is served: files of devices into `folder`, signed by `trust`, and the file `merged` out."""

    folder: Path
    trust: tuple[Path, ...]
    merged: Path | None = None
    bundle: Path | None = None
    token: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where: the address `host` and `port`, 0 for any that is free, with a `certificate` and its `key`."""

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None


def listen(site: Site, place: Place, say: Callable[[str], object]) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); `say` is told the address once it is listened on, and
    what `application` says.

    Raises ConfigError for what does not fit together, an address that cannot be had, and without the extra `fleet`.
    """
    if (place.certificate is None) != (place.key is None):
        raise ConfigError("--certificate and --key belong together: give both, or none.")
    if not _is_loopback(place.host) and (place.certificate is None or site.token is None):
        raise ConfigError(
            f"--host {place.host} is reached from other machines, which needs --certificate, --key and --token: a "
            "stranger could read what devices know. Without them, listen on 127.0.0.1 behind a server that has them."
        )
    _check_certificate(place)
    bundle = None if site.bundle is None else Bundle.open(site.bundle).id
    token = None if site.token is None else _token(site.token)
    app = application(site.folder, site.trust, merged=site.merged, token=token, bundle=bundle, say=say)
    uvicorn = _uvicorn()
    config = uvicorn.Config(
        _quietly(app),
        ssl_certfile=place.certificate,
        ssl_keyfile=place.key,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=10,
    )
    with _listening(place) as heard:
        host, port = heard.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(f"Listening on http{'s' if place.certificate else ''}://{shown}:{port}")
        _server(uvicorn, config, app).run(sockets=[heard])
        # Told to end by a SIGINT that the process began by ignoring, uvicorn returns as if nothing had been.
        raise KeyboardInterrupt


def _server(uvicorn: ModuleType, config: Any, app: Starlette) -> Any:
    """A server that, once it is told to end, does not wait for what is being sent."""

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.end()
            await super().shutdown(sockets)

    return Server(config)


def _quietly(app: Starlette) -> Any:
    """`app`, where what is cancelled at the end, such as a download that takes too long, leaves no traceback."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return run


def _listening(place: Place) -> socket.socket:
    if not 0 <= place.port <= _LAST_PORT:
        raise ConfigError(f"--port is {place.port}, and must be from 0 to {_LAST_PORT}.")
    try:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        return socket.create_server((place.host, place.port), family=family, backlog=MOST_AT_ONCE)
    except OSError as error:
        raise ConfigError(
            f"{place.host}, port {place.port} cannot be listened on ({error.strerror})."
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_certificate(place: Place) -> None:
    if place.certificate is None or place.key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(place.certificate, place.key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise ConfigError(
            f"--certificate {place.certificate} and --key {place.key} cannot be used ({reason})."
        ) from None


def _token(path: Path) -> str:
    try:
        token = read_file(path, _LARGEST_TOKEN).decode("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise ConfigError(f"--token {path} cannot be read ({reason}).") from None
    if len(token) < _LEAST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token {path} must hold one word of {_LEAST_TOKEN} characters or more: "
            "make one with `openssl rand -hex 32`."
        )
    return token


def _uvicorn() -> ModuleType:
    try:
        import uvicorn
    except ImportError:
        raise ConfigError(MISSING) from None
    return uvicorn
