"""What every request passes before a route sees it: who may ask, how much, for how long.

uvicorn and FastAPI bound neither the size of a body nor the time that it takes. This is plain ASGI,
around the whole application; what a connection may do before a request is whole is in `wire`.
"""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from alexnet.serve.measures import Measures
from alexnet.serve.refusals import Refusal, busy, refused
from alexnet.serve.settings import Settings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The page's own files alone; images that it was sent back as data:, and those that the user chose.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "x-frame-options": "DENY",
    }.items()
)
OPEN = ("/healthz", "/readyz", "/", "/static")  # that need no token: probes, and the page itself


class Gate:
    """The application, behind the limits of the settings."""

    def __init__(self, app: App, settings: Settings, measures: Measures) -> None:
        self._app, self._settings, self._measures = app, settings, measures
        self._answering = 0
        self._held = _Held()
        measures.gauge("alexnet_answering", "Requests being answered.", lambda: self._answering)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, answer = time.perf_counter(), _Answer(send)
        body = _Body(receive, self._settings, self._held)
        self._answering += 1
        try:
            headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            }
            self._check(scope, headers)
            body.check_announced(headers)
            await self._answer(scope, body, answer)
        except Refusal as refusal:
            if answer.status is None:
                await refused(refusal)(scope, receive, answer.send)
        finally:
            self._answering -= 1
            self._held.bytes -= body.bytes
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")  # not what the client wrote
            self._measures.answered(route, answer.status or 499, seconds)

    async def _answer(self, scope: Scope, body: "_Body", answer: "_Answer") -> None:
        """Run the application within the time of a request, counted from its whole body."""
        try:
            async with asyncio.timeout(None) as limit:
                body.on_whole = lambda: limit.reschedule(
                    asyncio.get_running_loop().time() + self._settings.request_seconds
                )
                await self._app(scope, body.receive, answer.send)
        except TimeoutError:
            raise busy("The answer took longer than this server lets one take.") from None

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        if self._answering > self._settings.max_requests:
            raise busy("The server is answering as many requests as it can.")
        host = headers.get("host", "")
        if not allowed_host(host, self._settings.hosts):
            raise Refusal(
                421, f"This server does not answer to the name {host[:200]!r}.",
                "Start it with --allow-host NAME, or use its address.",
            )  # fmt: skip
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and is_foreign(headers):
            raise Refusal(403, "A page of another origin sent this request.",
                          "Send it from the server's own page, or from a program.")  # fmt: skip
        path = scope["path"]
        if self._settings.token and not (path in OPEN or path.startswith("/static/")):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._settings.token.encode()):
                raise Refusal(
                    401, "The request has no token, or a wrong one.",
                    "Send the header Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip


@dataclass(slots=True)
class _Held:
    """The bytes of the bodies of all requests being answered."""

    bytes: int = 0


class _Body:
    """A request's body, counted as it comes: its announced length may be a lie."""

    def __init__(self, receive: Receive, settings: Settings, held: _Held) -> None:
        self._receive, self._settings, self._held = receive, settings, held
        self._start = time.monotonic()
        self.bytes = 0
        self.whole = False
        self.on_whole: Callable[[], None] = lambda: None

    def check_announced(self, headers: dict[str, str]) -> None:
        """Refuse a body that says itself that it is too large, before any of it is read."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.max_bytes:
            raise self._too_large()
        self.whole = length == "0" and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        """Return the next part.

        Raises
        ------
        Refusal
            413 past the limit of bytes, 408 past the time that the bytes so far have earned,
            503 where all requests together hold too many.
        """
        if self.whole:
            return await self._receive()
        settings = self._settings
        earned = settings.body_seconds + self.bytes / settings.slowest
        try:
            async with asyncio.timeout(self._start + earned - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408, "The request's body came too slowly.", "Send it again, over a faster line."
            ) from None
        part = len(message.get("body", b""))
        self.bytes += part
        self._held.bytes += part
        if self.bytes > settings.max_bytes:
            raise self._too_large()
        if self._held.bytes > settings.max_bytes_in_hand:
            raise busy("The server holds as many bytes of requests as it can.")
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.whole = True
            self.on_whole()
        return message

    def _too_large(self) -> Refusal:
        most = f"{self._settings.max_bytes:,} bytes"
        return Refusal(413, f"The request is larger than {most}.", f"Send at most {most}.")


class _Answer:
    """What is sent back, with the headers that everything has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await self._send(message)


def allowed_host(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header is localhost, a plain address, or one of some names; ``*`` is any.

    A page that makes its own name lead here (DNS rebinding) still sends that name; an address
    cannot be made to lead elsewhere.

    Examples
    --------
    >>> allowed_host("127.0.0.1:8000", ()), allowed_host("evil.example", ())
    (True, False)
    """
    name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]").lower()
    if "*" in names or name in ("localhost", *(known.lower() for known in names)):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_foreign(headers: dict[str, str]) -> bool:
    """Whether a browser says that another origin's page sent the request; programs say nothing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    return origin.partition("://")[2] != headers.get("host", "")
