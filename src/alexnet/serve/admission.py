"""Admission: every limit of this server, what it has in hand, and what it answers past a limit.

`ServerSettings` has every limit. `Admission` counts what a process has in hand and decides every
503; `exchange` holds each request and its answer to it, `protocol` each connection.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from alexnet.config import require
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

# All that is decoded, whatever a file is called.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
QUEUE_IS_FULL = "The server has as many images waiting as it can answer in time."
SEE_DOCS = "The API is described at /docs."
LOG = logging.getLogger("alexnet.serve")

# The page's own files alone; images that it was sent back as data:, and those that the user chose.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
COMMON_HEADERS = Headers({
    "cache-control": "no-cache",  # after an upgrade no browser runs old modules beside new ones
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

    A limit that would refuse everything, or an empty token, is a `ConfigError`.
    """

    max_bytes: int = 20_000_000  # of a request's body; a photograph of 24 megapixels has 5 to 12 MB
    max_pixels: int = 50_000_000  # of one image: 150 MB as RGB
    max_bytes_in_hand: int = 256_000_000  # of the bodies of all requests being answered
    max_answer_bytes: int = 64_000_000  # of all answers that are being read
    max_images: int = 32  # in one request
    max_requests: int = 128  # being answered at once; past it a request is refused unread
    max_reads: int = 256  # GETs being answered at once
    max_waiting: int = 256  # views in the network's queue: a second's work of two cores
    max_connections: int = 4_096  # open at once; past it the longest waiting one is aborted
    batch_size: int = 32  # views run together, at most
    decoders: int = 2  # threads that decode images
    head_seconds: float = 10.0  # for a connection's first request line and headers
    body_seconds: float = 10.0  # for a body, and a second more for every `slowest` bytes of it
    slowest: int = 65_536  # bytes a second, of bodies and of answers
    request_seconds: float = 30.0  # for the answer, once the body is there
    idle_seconds: int = 5  # that a connection is kept for its next request
    drain_seconds: int = 30  # for the requests in hand when the server is asked to stop
    compile: bool = True  # the network, in the background
    training_images: int = 2_000  # searched for the strongest patches and nearest neighbours
    follow_seconds: float = 0.0  # between looks for a newer checkpoint; 0: none is looked for
    tokens: tuple[str, ...] = ()  # one is asked for as `Authorization: Bearer`; none: nothing is
    hosts: tuple[str, ...] = ()  # names it answers to, besides localhost and plain addresses

    def __post_init__(self) -> None:
        limits = [name for name in ServerSettings.__slots__ if name.startswith("max_")]
        counts = ["batch_size", "decoders", "slowest", "idle_seconds", "drain_seconds"]
        require(self, [*limits, *counts], "at least 1", lambda number: number >= 1)
        times = ["head_seconds", "body_seconds", "request_seconds"]
        require(self, times, "more than 0", lambda seconds: seconds > 0)
        if not all(token and token == token.strip() for token in self.tokens):
            raise ConfigError("A token is empty.", "Give one, or leave it out for an open server.")


@dataclass(frozen=True, slots=True)
class Answered:
    """What is known of a request once it is answered: a line of the access log."""

    request_id: str
    client: str
    method: str
    path: str
    route: str  # "other" where there is none: not what the client wrote
    status: int  # 499 where the client left
    seconds: float  # from the last header to the last byte that was given to the system
    bytes_in: int
    bytes_out: int


class HTTPError(AlexNetError):
    """A request that is refused, with a status, the sentences of every error, and headers."""

    def __init__(
        self, status: int, what: str, fix: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, fix)
        self.status = status
        self.headers = dict(headers or {})

    def to_response(self, request_id: str) -> Response:
        """Return the answer; every error has the form of `ErrorResponse`."""
        detail = ErrorDetail(reason=self.what, fix=self.fix, request_id=request_id)
        body = ErrorResponse(error=detail).model_dump_json()
        return Response(body, self.status, self.headers, "application/json")

    def to_bytes(self, request_id: str, more: list[tuple[bytes, bytes]]) -> bytes:
        """Return the answer as bytes with more headers, for a request that is not parsed."""
        response = self.to_response(request_id)
        headers = [*more, *response.raw_headers, *COMMON_HEADERS]
        headers.append((b"x-request-id", request_id.encode()))
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in headers]
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


class Connection(Protocol):
    """What can be ended at once, to make room."""

    def abort(self) -> None:
        """End it."""


class Admission:
    """What one process has in hand; every 503 is decided here or in `require_ready`.

    All is counted by the thread of the event loop, but for the forwards, which are under the
    engine's lock. A request whose body is still coming takes no place, nor does one whose answer
    is being read: a hundred clients that send or read a byte now and then would keep all others
    out. The bytes of both are bounded.
    """

    def __init__(
        self,
        settings: ServerSettings,
        on_answer: Callable[[Answered], None] = lambda answered: None,
    ) -> None:
        self.settings = settings
        self.on_answer = on_answer
        self.waiting_connections: dict[Connection, None] = {}  # the longest waiting first
        self.kept_connections: dict[Connection, None] = {}  # the same, for a further request
        self.stuck_connections: dict[Connection, None] = {}  # that do not read; the longest first
        self.requests = 0  # with a body, which is whole; not yet answered
        self.reads = 0  # without
        self.body_bytes = 0  # of all bodies
        self.answer_bytes = 0  # of all answers that are being read
        self.forwards = 0  # in the network's queue
        self.is_closing = False  # nothing more is queued
        self.is_draining = False  # every answer is the last of its connection

    def admit_connection(self, connections: int) -> Connection | None:
        """Return the connection that is aborted for a new one: the longest without a request.

        One that had a request answered is of somebody who behaves, so it comes after the others.
        """
        if connections <= self.settings.max_connections:
            return None
        for idle in (self.waiting_connections, self.kept_connections):
            if idle:
                return next(iter(idle))
        raise _unavailable("The server has as many connections as it keeps.")

    def find_refusal(self) -> HTTPError | None:
        """Return why a request with images would be refused now, before any of it is read."""
        if self.requests >= self.settings.max_requests:
            return _unavailable("The server is answering as many requests as it can.")
        if self.forwards >= self.settings.max_waiting:
            return _unavailable(QUEUE_IS_FULL)
        return None

    def take_place(self, has_body: bool) -> None:
        """Count a request that is whole, until `give_place`."""
        if has_body:
            if refusal := self.find_refusal():
                raise refusal
            self.requests += 1
        else:
            if self.reads >= self.settings.max_reads:
                raise _unavailable("The server is answering as many questions as it can.")
            self.reads += 1

    def give_place(self, has_body: bool) -> None:
        """Take a request out of the count."""
        if has_body:
            self.requests -= 1
        else:
            self.reads -= 1

    def hold_bytes(self, count: int) -> None:
        """Count bytes of a body; they count until it is closed, also where they are refused."""
        self.body_bytes += count
        if self.body_bytes > self.settings.max_bytes_in_hand:
            raise _unavailable("The server holds as many bytes of requests as it can.")

    def hold_answer(self, count: int) -> None:
        """Count bytes of an answer until it is read; who has not read for the longest is cut off.

        It is a 503 when all who are being answered read.
        """
        if self.answer_bytes and self.answer_bytes + count > self.settings.max_answer_bytes:
            if self.stuck_connections:
                next(iter(self.stuck_connections)).abort()
            raise _unavailable("The server holds as many bytes of answers as it can.")
        self.answer_bytes += count

    def queue_forwards(self, count: int) -> None:
        """Count forwards that wait for the network; an empty queue takes any number."""
        full = self.forwards and self.forwards + count > self.settings.max_waiting
        if self.is_closing or full:
            raise _unavailable(QUEUE_IS_FULL)
        self.forwards += count

    def check_health(self, fault: str) -> None:
        """See that a request with images would be taken, and that nothing is at fault."""
        if fault:
            raise _unavailable(fault, 5)
        if self.is_draining:
            raise _unavailable("The server is about to end.", 5)
        if refusal := self.find_refusal():
            raise refusal

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
        """Return what a client is told of an exception that a route raised.

        What other errors say is for who runs the server: there may be paths in it.
        """
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
        LOG.error("Request %s failed.", request.scope.get("request_id"), exc_info=error)
        what = "The server failed at this request, and has written down why."
        return HTTPError(500, what, "Tell who runs it, with the request_id.")
