"""Admission: whatever this server refuses, and what it answers then.

`ServerSettings` has every limit. `Admission` counts what a process has in hand and decides every
503. `AdmissionMiddleware`, plain ASGI around the whole application, checks each request and its
body as it comes: uvicorn and FastAPI bound neither the size of a body nor the time that it takes.
The deadlines of a connection on which no whole request has come are in `protocol`.
"""

import asyncio
import hmac
import ipaddress
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from alexnet.errors import (
    AlexNetError,
    ConfigError,
    ImageError,
    TooManyPixelsError,
    UnknownFormatError,
)
from alexnet.serve.responses import ErrorDetail, ErrorResponse

_T = TypeVar("_T")
ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
App = Callable[[ASGIMessage, Receive, Send], Awaitable[None]]

IMAGE_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
)  # all that is decoded, whatever a file is called
PUBLIC = ("/healthz", "/readyz", "/")  # these need no token, nor does /static: probes and the page
EXAMPLE = "Example: curl --data-binary @photograph.jpg ADDRESS, or curl -F image=@photograph.jpg."
QUEUE_IS_FULL = "The server has as many images waiting as it can answer in time."
SEE_DOCS = "The API is described at /docs."

# The page's own files alone; images that it was sent back as data:, and those that the user chose.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = Headers({
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}).raw  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """The limits of a server. The table in docs/serving.md says what happens past each.

    Raises
    ------
    ConfigError
        When a limit would refuse everything.
    """

    max_bytes: int = 20_000_000  # of a request's body; a photograph of 24 megapixels has 5 to 12 MB
    max_pixels: int = 50_000_000  # of one image: 150 MB as RGB
    max_bytes_in_hand: int = 256_000_000  # of the bodies of all requests being answered
    max_images: int = 32  # in one request
    max_requests: int = 128  # being answered at once; past it a request is refused unread
    max_waiting: int = 256  # views in the network's queue: a second's work of two cores
    max_connections: int = 1_024  # open at once; past it the longest waiting one is aborted
    batch_size: int = 32  # views run together, at most
    decoders: int = 2  # threads that decode images
    head_seconds: float = 10.0  # for a connection's first request line and headers
    body_seconds: float = 10.0  # for a body, and a second more for every `slowest` bytes of it
    slowest: int = 65_536  # bytes a second
    request_seconds: float = 30.0  # for the answer, once the body is there
    idle_seconds: int = 5  # that a connection is kept for its next request
    drain_seconds: int = 30  # for the requests in hand when the server is asked to stop
    compile: bool = True  # the network, in the background
    training_images: int = 2_000  # searched for the strongest patches and nearest neighbours
    token: str = ""  # asked for as `Authorization: Bearer`; empty: none is
    hosts: tuple[str, ...] = ()  # names it answers to, besides localhost and plain addresses

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "max_waiting", "decoders"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} is {getattr(self, name)}.", "It must be at least 1.")


class HTTPError(AlexNetError):
    """A request that is refused, with a status, the sentences of every error, and headers."""

    def __init__(
        self, status: int, what: str, fix: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, fix)
        self.status = status
        self.headers = dict(headers or {})

    def to_response(self) -> Response:
        """Return the answer; every error has the form of `ErrorResponse`."""
        body = ErrorResponse(error=ErrorDetail(reason=self.what, fix=self.fix)).model_dump_json()
        return Response(body, self.status, self.headers, "application/json")

    def to_bytes(self) -> bytes:
        """Return the answer as bytes, for a connection on which no request has come."""
        response = self.to_response()
        response.headers["connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        return b"\r\n".join([*lines, b"", bytes(response.body)])


def _unavailable(what: str, seconds: int = 1) -> HTTPError:
    """Return a 503, with the seconds after which to send the request again."""
    fix = f"Send the request again in {seconds} second{'s' if seconds != 1 else ''}."
    return HTTPError(503, what, fix, {"Retry-After": str(seconds)})


def require_ready(value: _T | None, what: str, seconds: int = 1) -> _T:
    """Return what a background thread has made; 503 with `what` while it has not."""
    if value is None:
        raise _unavailable(what, seconds)
    return value


class Admission:
    """What one process has in hand; every 503 is decided here or in `require_ready`.

    The connections, requests and bytes are counted by the thread of the event loop, the forwards
    under the engine's lock. A request whose body is still coming takes no place: a hundred clients
    that send a byte now and then would keep all others out.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.waiting_connections: dict[asyncio.Protocol, None] = {}  # the longest waiting first
        self.requests = 0  # whose bodies are whole
        self.body_bytes = 0  # of all bodies
        self.forwards = 0  # in the network's queue
        self.is_closing = False

    def admit_connection(self, connections: int) -> asyncio.Protocol | None:
        """Return the connection that is aborted for a new one, the longest without a request."""
        if connections <= self.settings.max_connections:
            return None
        if not self.waiting_connections:
            raise _unavailable("The server has as many connections as it keeps.")
        return next(iter(self.waiting_connections))

    def check_requests(self) -> None:
        """See that one more request could be answered."""
        if self.requests >= self.settings.max_requests:
            raise _unavailable("The server is answering as many requests as it can.")

    def hold_bytes(self, count: int) -> None:
        """Count bytes of a body; they count until it is closed, also where they are refused."""
        self.body_bytes += count
        if self.body_bytes > self.settings.max_bytes_in_hand:
            raise _unavailable("The server holds as many bytes of requests as it can.")

    def queue_forwards(self, count: int) -> None:
        """Count forwards that wait for the network; an empty queue takes any number."""
        full = self.forwards and self.forwards + count > self.settings.max_waiting
        if self.is_closing or full:
            raise _unavailable(QUEUE_IS_FULL)
        self.forwards += count

    def check_queue(self) -> None:
        """See that the network's queue is not full."""
        if self.forwards >= self.settings.max_waiting:
            raise _unavailable(QUEUE_IS_FULL)

    def make_timeout_error(self, body_is_whole: bool) -> HTTPError:
        """Return the error of a request past its time: 408 while its body comes, then 503."""
        if body_is_whole:
            return _unavailable("The answer took longer than this server lets one take.")
        what = "The request's body came too slowly."
        return HTTPError(408, what, "Send it again, over a faster line.")

    def make_size_error(self) -> HTTPError:
        """Return the error of a body past the limit."""
        most = f"{self.settings.max_bytes:,} bytes"
        return HTTPError(413, f"The request is larger than {most}.", f"Send at most {most}.")

    def explain(self, request: Request, error: Exception) -> HTTPError:
        """Return what a client is told of an exception that a route raised."""
        match error:
            case HTTPError():
                return error
            case TooManyPixelsError():
                what = "The image announces more pixels than this server decodes."
                fix = f"Send one of at most {self.settings.max_pixels:,} pixels."
                return HTTPError(413, what, fix)
            case UnknownFormatError():
                fix = f"Send a file of one of these formats: {', '.join(IMAGE_FORMATS)}."
                return HTTPError(415, error.what, fix)
            case ImageError():
                return HTTPError(422, error.what, "Send an image that other programs can open.")
            case AlexNetError():
                return HTTPError(422, error.what, error.fix)
            case RequestValidationError():
                first = error.errors()[0]
                where = first["loc"][-1] if first["loc"] else "request"
                what = f"The setting {where!r} cannot be used: {first['msg']}."
                return HTTPError(422, what, SEE_DOCS)
            case HTTPException():
                reasons = {
                    404: f"There is nothing at {request.url.path!r}.",
                    405: f"{request.method} is not done at {request.url.path!r}.",
                }
                what = reasons.get(error.status_code, f"The request was refused: {error.detail}.")
                return HTTPError(error.status_code, what, SEE_DOCS, error.headers)
        what = "The server failed at this request, and has written down why."
        return HTTPError(500, what, "Tell who runs it.")


class AdmissionMiddleware:
    """An ASGI application behind the checks of who may ask, how much, and for how long.

    `on_answer` is told of each request: route, status (499 where the client left), seconds.
    """

    def __init__(
        self, app: App, admission: Admission, on_answer: Callable[[str, int, float], None]
    ) -> None:
        self._app, self._admission, self._on_answer = app, admission, on_answer

    async def __call__(self, scope: ASGIMessage, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_with_headers(message: ASGIMessage) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        body = RequestBody(receive, self._admission)
        try:
            await self._run(scope, body, send_with_headers)
        except HTTPError as error:
            if not status:
                await error.to_response()(scope, receive, send_with_headers)
        finally:
            body.close()
            route = getattr(scope.get("route"), "path", "other")  # not what the client wrote
            self._on_answer(route, status or 499, time.perf_counter() - start)

    async def _run(self, scope: ASGIMessage, body: "RequestBody", send: Send) -> None:
        headers = Headers(scope=scope)
        self._check(scope, headers)
        try:
            async with asyncio.timeout(None) as deadline:
                body.begin(headers, deadline)
                await self._app(scope, body.receive, send)
        except TimeoutError:
            raise self._admission.make_timeout_error(body.is_whole) from None

    def _check(self, scope: ASGIMessage, headers: Headers) -> None:
        settings = self._admission.settings
        host = headers.get("host", "")
        if not is_allowed_host(host, settings.hosts):
            what = f"This server does not answer to the name {host[:200]!r}."
            raise HTTPError(421, what, "Start it with --allow-host NAME, or use its address.")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._admission.check_requests()  # before the body is read, which would be for nothing
            if is_foreign(headers):
                what = "A page of another origin sent this request."
                raise HTTPError(403, what, "Send it from the server's own page, or from a program.")
        path = scope["path"]
        if settings.token and path not in PUBLIC and not path.startswith("/static/"):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), settings.token.encode()):
                raise HTTPError(
                    401, "The request has no token, or a wrong one.",
                    "Send the header Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip


class RequestBody:
    """One request's body, counted as it comes: its announced length may be a lie.

    It takes one of the places of `Admission.requests` from its last byte until `close`.
    """

    def __init__(self, receive: Receive, admission: Admission) -> None:
        self._receive, self._admission = receive, admission
        self._bytes = 0
        self._has_place = False
        self.is_whole = False

    def begin(self, headers: Headers, deadline: asyncio.Timeout) -> None:
        """Refuse a body that says itself that it is too large; else set the request's deadline."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._admission.settings.max_bytes:
            raise self._admission.make_size_error()
        self._deadline, self._start = deadline, asyncio.get_running_loop().time()
        self.is_whole = length == "0" and "transfer-encoding" not in headers
        self._reschedule()

    async def receive(self) -> ASGIMessage:
        """Return the next part of the body, as ASGI's `receive`."""
        message = await self._receive()
        if self.is_whole:
            return message
        part = len(message.get("body", b""))
        self._bytes += part
        self._admission.hold_bytes(part)
        if self._bytes > self._admission.settings.max_bytes:
            raise self._admission.make_size_error()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._admission.check_requests()
            self._admission.requests += 1
            self.is_whole = self._has_place = True
        self._reschedule()
        return message

    def close(self) -> None:
        """Give back what it held: the request is answered."""
        self._admission.body_bytes -= self._bytes
        self._admission.requests -= self._has_place

    def _reschedule(self) -> None:
        """Set the deadline: bytes that have come earn time; a whole body has that of an answer."""
        settings = self._admission.settings
        if self.is_whole:
            when = asyncio.get_running_loop().time() + settings.request_seconds
        else:
            when = self._start + settings.body_seconds + self._bytes / settings.slowest
        self._deadline.reschedule(when)


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, which would write a file past a megabyte to the disk; this never does.

    What it holds is bounded by the limit of a body.
    """

    spool_max_size = 1 << 62

    def __init__(self, request: Request, max_images: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=math.inf, max_fields=math.inf)
        self._most = max_images

    def on_headers_finished(self) -> None:
        """Count the files, and the fields that are none."""
        super().on_headers_finished()
        if max(self._current_files, self._current_fields) > self._most:
            what = "The form has more parts than are taken at once."
            raise HTTPError(413, what, f"Send at most {self._most} images in one request.")


async def read_images(request: Request, max_images: int) -> list[bytes]:
    """Return the files of a multipart form, or the body itself as one file, in memory alone.

    Raises
    ------
    HTTPError
        400 when there is no file, or the form cannot be read; 413 when there are too many.
    """
    media_type = request.headers.get("content-type", "")
    if not media_type.lower().startswith("multipart/form-data"):
        body = await request.body()
        if not body:
            raise HTTPError(400, "The request has no image.", EXAMPLE)
        return [body]
    try:
        form = await _InMemoryParser(request, max_images).parse()
    except MultiPartException as error:
        raise HTTPError(400, f"The form cannot be read: {error.message}", EXAMPLE) from None
    parts = [value for _, value in form.multi_items()]
    files = [await part.read() for part in parts if isinstance(part, UploadFile)]
    await form.close()
    if not files:
        raise HTTPError(400, "The form has no file.", EXAMPLE)
    return files


def is_allowed_host(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header is localhost, a plain address, or one of some names; ``*`` is any.

    A page that makes its own name lead here (DNS rebinding) still sends that name; an address
    cannot be made to lead elsewhere.

    Examples
    --------
    >>> is_allowed_host("127.0.0.1:8000", ()), is_allowed_host("evil.example", ())
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


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another origin's page sent the request; programs say nothing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")
