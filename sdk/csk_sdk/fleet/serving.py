"""Files of a fleet over HTTPS: devices put theirs here, and get what was merged. An ASGI application (Starlette).

    PUT /contributions     what `csk-sdk fleet export --sign` wrote: 201 for a device's first, 200 for others, with a
                           Receipt as JSON
    GET /merged            what was merged last, with an ETag; 304 where that is the one asked about, 404 before any

What went wrong is `{"error": SENTENCE}`: 400 no such file, 401 no token, 403 nobody who is trusted signed it, 408 too
slow, 413 too large, 507 no room. Devices need nothing but an HTTPS client: csk-sdk opens no connection of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csk_sdk.errors import ConfigError, CskError, FleetError, StorageError
from csk_sdk.fleet.receiving import LARGEST_FILE, SENT, Receiver
from csk_sdk.fleet.trusting import UntrustedError
from csk_sdk.formats.opening import read_file
from csk_sdk.state.atomic import storage_error

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST = 64 << 20
"""Bytes that a device may send: a hundred lessons of ten classes, with 832 features."""
PATIENCE = 300.0
"""Seconds that sending may take."""
MISSING = "Receiving files of a fleet needs the extra 'fleet': pip install 'csk-sdk[fleet]'."


def application(
    folder: Path,
    trust: Iterable[Path | str],
    *,
    merged: Path | None = None,
    token: str | None = None,
    bundle: str | None = None,
    largest: int = LARGEST,
    patience: float = PATIENCE,
) -> Starlette:
    """What receives files of devices into `folder`, as `Receiver` does, and gives out the file `merged`.

    With `token`, whoever asks must send it (`Authorization: Bearer TOKEN`). Of what is sent no more than `largest`
    bytes are taken, and for no longer than `patience` seconds. Raises ConfigError for what is no key, or without
    Starlette; StorageError where the folder cannot be made.
    """
    starlette = _starlette()
    site = _Site(
        starlette, Receiver(folder, trust, bundle), merged, token, min(largest, LARGEST_FILE), patience
    )
    routes = [
        starlette.Route("/contributions", site.put, methods=["PUT"]),
        starlette.Route("/merged", site.get, methods=["GET"]),
    ]
    found: Starlette = starlette.Starlette(routes=routes)
    return found


class _Site:
    def __init__(
        self,
        library: _Library,
        receiver: Receiver,
        merged: Path | None,
        token: str | None,
        largest: int,
        patience: float,
    ) -> None:
        self._library, self._receiver, self._merged = library, receiver, merged
        self._token, self._largest, self._patience = token, largest, patience

    async def put(self, request: Request) -> Response:
        """`PUT /contributions`."""
        if (refused := self._refused(request)) is not None:
            return refused
        # Before anything is read: whoever says that it is too large need not send it.
        said = request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > self._largest:
            return self._too_large()
        with tempfile.TemporaryDirectory(prefix="csk-fleet-") as place:
            sent = Path(place) / "sent.cskc"
            try:
                async with asyncio.timeout(self._patience):
                    if not await self._receive(request, sent):
                        return self._too_large()
                receipt = await self._library.run_in_threadpool(self._receiver.take, sent)
            except TimeoutError:
                return self._error(408, f"{SENT} took longer than {self._patience:g} s: send it again.")
            except self._library.ClientDisconnect:
                return self._error(400, f"{SENT} was cut short: send it again.")
            except UntrustedError as error:
                return self._error(403, str(error))
            except StorageError as error:
                return self._error(507, str(error))
            except FleetError as error:
                return self._error(400, str(error))
        answer: Response = self._library.JSONResponse(
            receipt.to_json(), status_code=201 if receipt.status == "new" else 200
        )
        return answer

    async def get(self, request: Request) -> Response:
        """`GET /merged`."""
        if (refused := self._refused(request)) is not None:
            return refused
        try:
            content = await self._library.run_in_threadpool(self._read_merged)
        except CskError as error:
            return self._error(404, str(error))
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        known = [
            one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")
        ]
        if tag in known or "*" in known:
            unchanged: Response = self._library.Response(status_code=304, headers={"etag": tag})
            return unchanged
        headers = {"etag": tag, "content-disposition": 'attachment; filename="merged.cskc"'}
        found: Response = self._library.Response(
            content, media_type="application/octet-stream", headers=headers
        )
        return found

    async def _receive(self, request: Request, place: Path) -> bool:
        """Write what is sent to `place`; False where it is too large."""
        count = 0
        try:
            with place.open("wb") as file:
                async for part in request.stream():
                    count += len(part)
                    if count > self._largest:
                        return False
                    file.write(part)
        except OSError as error:
            raise storage_error(error, "keep what was sent") from error
        return True

    def _read_merged(self) -> bytes:
        if self._merged is not None:
            try:
                return read_file(self._merged, LARGEST_FILE)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise FleetError(f"What was merged cannot be read ({error.strerror}).") from None
        raise FleetError("Nothing was merged yet: ask again later.")

    def _refused(self, request: Request) -> Response | None:
        if self._token is None:
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        return self._error(401, "The fleet's token is missing or wrong: send `Authorization: Bearer TOKEN`.")

    def _too_large(self) -> Response:
        return self._error(413, f"{SENT} is larger than {self._largest / 1e6:g} MB.")

    def _error(self, status: int, sentence: str) -> Response:
        # What was not read of a refused request would be taken for the next one.
        headers = {"connection": "close"}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        refused: Response = self._library.JSONResponse(
            {"error": sentence}, status_code=status, headers=headers
        )
        return refused


class _Library:
    """The parts of Starlette that are used."""

    def __init__(self) -> None:
        from starlette import applications, concurrency, requests, responses, routing

        self.Starlette: Any = applications.Starlette
        self.run_in_threadpool: Any = concurrency.run_in_threadpool
        self.ClientDisconnect = requests.ClientDisconnect
        self.JSONResponse: Any = responses.JSONResponse
        self.Response: Any = responses.Response
        self.Route: Any = routing.Route


def _starlette() -> _Library:
    try:
        return _Library()
    except ImportError:
        raise ConfigError(MISSING) from None
