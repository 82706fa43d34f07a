"""Files of a fleet over HTTPS: devices put theirs here, and get what was merged. An ASGI application (Starlette).

    PUT /contributions     what `csk-sdk fleet export --sign` wrote: 201 for a device's first, 200 for others, with a
                           Receipt as JSON
    GET /merged            what was merged last, with an ETag; 304 where that is the one asked about, 404 before any

What went wrong is `{"error": SENTENCE}`: 400 no such file, 401 no token, 403 nobody who is trusted signed it, 404 no
such place, 405 no such method there, 408 too slow, 413 too large, 503 not now, 507 no room. Devices need nothing but an
HTTPS client: csk-sdk opens no connection of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csk_sdk.errors import ConfigError, CskError, FleetError, StateError, StorageError
from csk_sdk.fleet.giving import MergedFile
from csk_sdk.fleet.receiving import LARGEST_FILE, SENT, Receipt, Receiver
from csk_sdk.fleet.trusting import UntrustedError
from csk_sdk.formats.byte_sizes import size_of
from csk_sdk.formats.wording import plural
from csk_sdk.state.atomic import storage_error

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST = 64 << 20
"""Bytes that a device may send: a hundred lessons of ten classes, with 832 features."""
PATIENCE = 300.0
"""Seconds that sending may take."""
MOST_AT_ONCE = 32
"""Requests that are answered at once; more are refused."""
ENDING = "The receiver is being stopped: send it again later."
CROWDED = "Too many are asking at once: try again later."
# For so many seconds a refused request is read on: whoever is cut off while sending reads no answer.
_WAITED_IN_VAIN = 2.0
_LONGEST_LINE = 1000
_STATUSES = {
    "new": "new",
    "newer": "newer than what was here",
    "same": "here already",
    "older": "older than what is here",
}
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
    most: int = MOST_AT_ONCE,
    say: Callable[[str], object] | None = None,
) -> Starlette:
    """What receives files of devices into `folder`, as `Receiver` does, and gives out the file `merged`.

    With `token`, whoever asks must send it (`Authorization: Bearer TOKEN`). Of what is sent no more than `largest`
    bytes are taken, for no longer than `patience` seconds, and of no more than `most` requests at once. `say` is told a
    line of each file that came, and of what was refused. Its `state.end()` ends what is being sent, each with a
    sentence; call it in the event loop. Raises ConfigError for what is no key, a `merged` that is there and not what
    `fleet.merge` writes, or without Starlette; StorageError where the folder cannot be made.
    """
    starlette = _starlette()
    given = None if merged is None else MergedFile(merged, bundle)
    if given is not None:
        try:
            with suppress(FileNotFoundError):
                given.require_whole()
        except FleetError as error:
            raise ConfigError(f"What was merged cannot be given out: {error}") from None
    site = _Site(
        starlette,
        Receiver(folder, trust, bundle),
        given,
        token,
        min(largest, LARGEST_FILE),
        patience,
        most,
        say,
    )
    routes = [
        starlette.Route("/contributions", site.put, methods=["PUT"]),
        starlette.Route("/merged", site.get, methods=["GET"]),
    ]
    found: Starlette = starlette.Starlette(
        routes=routes,
        exception_handlers={starlette.HTTPException: site.elsewhere},
        middleware=[starlette.Middleware(site.uncrowded)],
    )
    found.state.end = site.end
    return found


class _Site:
    def __init__(
        self,
        library: _Library,
        receiver: Receiver,
        merged: MergedFile | None,
        token: str | None,
        largest: int,
        patience: float,
        most: int,
        say: Callable[[str], object] | None,
    ) -> None:
        self._library, self._receiver, self._merged = library, receiver, merged
        self._token, self._largest, self._patience, self._say = token, largest, patience, say
        # Requests that are being answered, and those of them that are refused already, and only read on.
        self._most, self._asked, self._in_vain = most, 0, 0
        self._crowded = False
        self._sending: set[asyncio.Timeout] = set()
        self._ending = False

    def uncrowded(self, app: Any) -> Any:
        """`app`, while no more ask than it answers at once; whoever comes then is refused."""

        async def run(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            self._asked += 1
            try:
                answer = self._crowd_refused(self._library.Request(scope, receive)) or app
                await answer(scope, receive, send)
            finally:
                self._asked -= 1

        return run

    def _crowd_refused(self, request: Request) -> _Refusal | None:
        busy = self._asked - self._in_vain
        if busy <= self._most:
            # However many come and go at the edge of a crowd, it is told once.
            self._crowded = self._crowded and 2 * busy > self._most
            return None
        line = None if self._crowded else f"{CROWDED} More than {self._most} do; of others there is no line."
        self._crowded = True
        return self._error(request, 503, CROWDED, line)

    async def put(self, request: Request) -> Response | _Refusal:
        """`PUT /contributions`."""
        if (refused := self._refused(request)) is not None:
            return refused
        # Before anything is read: whoever says that it is too large need not send it.
        if _length_of(request) > self._largest:
            return self._error(request, *self._too_large())
        try:
            with self._receiver.upload() as sent:
                if (wrong := await self._receive(request, sent)) is not None:
                    return self._error(request, *wrong)
                receipt = await self._library.run_in_threadpool(self._receiver.take, sent)
        except CskError as error:
            # Where it lies here is for who reads the lines, and nobody else.
            shown = str(error).replace(str(self._receiver.folder), "the receiver's folder")
            return self._error(request, _status_of(error), shown, str(error))
        self._tell(_line_of(receipt))
        answer: Response = self._library.JSONResponse(
            receipt.to_json(), status_code=201 if receipt.status == "new" else 200
        )
        return answer

    async def get(self, request: Request) -> Response | _Refusal:
        """`GET /merged`."""
        if (refused := self._refused(request)) is not None:
            return refused
        try:
            content = await self._library.run_in_threadpool(self._read_merged)
        except FileNotFoundError:
            return self._error(request, 404, "Nothing was merged yet: ask again later.")
        except CskError as error:
            shown = "What was merged cannot be given out, since it is not whole: ask again later."
            return self._error(request, 503, shown, str(error))
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

    async def elsewhere(self, request: Request, error: Any) -> _Refusal:
        """What is asked of another place, or in another way."""
        answer = self._error(
            request, error.status_code, "There are `PUT /contributions` and `GET /merged`, and nothing else."
        )
        answer.headers.update(error.headers or {})
        return answer

    def end(self) -> None:
        """End what is being sent."""
        self._ending = True
        now = asyncio.get_running_loop().time()
        for one in self._sending:
            if not one.expired():
                one.reschedule(now)

    async def _receive(self, request: Request, place: Path) -> tuple[int, str] | None:
        """Write what is sent to `place`; a status and a sentence where it did not come."""
        count = 0
        limit = asyncio.timeout(0 if self._ending else self._patience)
        self._sending.add(limit)
        try:
            async with limit:
                with place.open("wb") as file:
                    async for part in request.stream():
                        count += len(part)
                        if count > self._largest:
                            return self._too_large()
                        file.write(part)
        except TimeoutError:
            if self._ending:
                return 503, ENDING
            return 408, f"{SENT} took longer than {self._patience:g} s: send it again."
        except self._library.ClientDisconnect:
            return 400, f"{SENT} was cut short: send it again."
        except OSError as error:
            raise storage_error(error, f"keep what was sent in {place.parent}", place.parent) from error
        finally:
            self._sending.discard(limit)
        return None

    async def _read_on(self, request: Request) -> None:
        """What a refused request still sends, up to `largest` bytes."""
        if self._ending or self._in_vain >= self._most:
            return
        count = 0
        self._in_vain += 1
        try:
            # Where all was read already, Starlette says so by RuntimeError.
            with suppress(TimeoutError, RuntimeError, self._library.ClientDisconnect):
                async with asyncio.timeout(_WAITED_IN_VAIN):
                    async for part in request.stream():
                        count += len(part)
                        if count > self._largest:
                            return
        finally:
            self._in_vain -= 1

    def _read_merged(self) -> bytes:
        if self._merged is None:
            raise FileNotFoundError
        return self._merged.read()

    def _refused(self, request: Request) -> _Refusal | None:
        if self._token is None:
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        return self._error(
            request, 401, "The fleet's token is missing or wrong: send `Authorization: Bearer TOKEN`."
        )

    def _too_large(self) -> tuple[int, str]:
        return 413, f"{SENT} is larger than {size_of(self._largest)}."

    def _error(self, request: Request, status: int, sentence: str, cause: str | None = "") -> _Refusal:
        """Refuse with a sentence, and tell whoever runs this its `cause`, if that is another; None to tell nothing."""
        who = f" {request.client.host}" if request.client is not None else ""
        if cause is not None:
            self._tell(f"Refused{who}, {request.method} {request.url.path}: {cause or sentence}")
        # What was not read of a refused request would be taken for the next one.
        headers = {"connection": "close"}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        answer = self._library.JSONResponse({"error": sentence}, status_code=status, headers=headers)
        return _Refusal(answer, partial(self._read_on, request))

    def _tell(self, line: str) -> None:
        if self._say is not None:
            # A device whose file is kept is told so, whether or not anybody reads of it.
            with suppress(OSError):
                self._say("".join(one if one.isprintable() else "?" for one in line[:_LONGEST_LINE]))


class _Refusal:
    """An answer, and reading on behind it: who waits to be told to go on is not told, who does not wait is heard."""

    def __init__(self, answer: Response, read_on: Callable[[], Awaitable[None]]) -> None:
        self._answer, self._read_on = answer, read_on
        self.headers = answer.headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def unfinished(message: Any) -> None:
            await send(
                message if message["type"] == "http.response.start" else {**message, "more_body": True}
            )

        await self._answer(scope, receive, unfinished)
        await self._read_on()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _length_of(request: Request) -> int:
    """What it says of its body's length; 0 where it says nothing."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() else 0


def _line_of(receipt: Receipt) -> str:
    classes = plural(len(receipt.classes), "class", "classes")
    return f"{receipt.name} ({receipt.device[:8]}): {classes}, {_STATUSES[receipt.status]}."


def _status_of(error: CskError) -> int:
    kinds = ((UntrustedError, 403), (StorageError, 507), (StateError, 503))
    return next((status for kind, status in kinds if isinstance(error, kind)), 400)


class _Library:
    """The parts of Starlette that are used."""

    def __init__(self) -> None:
        from starlette import applications, concurrency, exceptions, middleware, requests, responses, routing

        self.Starlette: Any = applications.Starlette
        self.run_in_threadpool: Any = concurrency.run_in_threadpool
        self.ClientDisconnect = requests.ClientDisconnect
        self.HTTPException = exceptions.HTTPException
        self.JSONResponse: Any = responses.JSONResponse
        self.Middleware: Any = middleware.Middleware
        self.Request: Any = requests.Request
        self.Response: Any = responses.Response
        self.Route: Any = routing.Route


def _starlette() -> _Library:
    try:
        return _Library()
    except ImportError:
        raise ConfigError(MISSING) from None
