"""What every request passes before a route sees it: who may ask, how much, for how long.

uvicorn and FastAPI bound neither the size of a body nor the time that it takes. This is plain ASGI,
around the whole application; what a connection may do before a request is whole is in `wire`.
"""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable

from alexnet.serve.body import Body, Message, Receive, Room
from alexnet.serve.measures import Measures
from alexnet.serve.refusals import Refusal, busy, refused
from alexnet.serve.settings import Settings

Scope = Message
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
OPEN = ("/healthz", "/readyz", "/")  # that need no token, with /static: probes and the page


class Gate:
    """The application, behind the limits of the settings."""

    def __init__(self, app: App, settings: Settings, measures: Measures) -> None:
        self._app, self._settings, self._measures = app, settings, measures
        self._room = Room(settings)
        text = "Requests with a body that are being answered."
        measures.gauge("alexnet_answering", text, lambda: self._room.answering)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, answer = time.perf_counter(), _Answer(send)
        body = Body(receive, self._settings, self._room)
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
            body.close()
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")  # not what the client wrote
            self._measures.answered(route, answer.status or 499, seconds)

    async def _answer(self, scope: Scope, body: Body, answer: "_Answer") -> None:
        """Run the application within the time of a request, counted from its whole body."""
        try:
            async with asyncio.timeout(None) as limit:
                body.when_whole(
                    lambda: limit.reschedule(
                        asyncio.get_running_loop().time() + self._settings.request_seconds
                    )
                )
                await self._app(scope, body.receive, answer.send)
        except TimeoutError:
            raise busy("The answer took longer than this server lets one take.") from None

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not allowed_host(host, self._settings.hosts):
            raise Refusal(
                421, f"This server does not answer to the name {host[:200]!r}.",
                "Start it with --allow-host NAME, or use its address.",
            )  # fmt: skip
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._room.check()  # before the body is read, which would be for nothing
            if is_foreign(headers):
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
