"""One request and its answer: who may ask, how much, and for how long.

`AdmissionMiddleware`, plain ASGI around the whole application, checks each request and its body as
it comes: uvicorn and FastAPI bound neither the size of a body nor the time that it takes. The
deadlines of a connection on which no whole request has come are in `protocol`.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
import zlib
from collections.abc import Mapping

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from alexnet.serve.admission import (
    COMMON_HEADERS,
    Admission,
    Answered,
    App,
    ASGIMessage,
    HTTPError,
    Receive,
    Send,
)

PUBLIC = ("/healthz", "/readyz", "/")  # these need no token, nor does /static: probes and the page
UNCOUNTED = (*PUBLIC, "/metrics")  # nor do they take a place: a monitor asks a server that is full
READS = ("GET", "HEAD", "OPTIONS")
IN_MEMORY = 1 << 62  # bytes past which Starlette's parser would write a file to the disk
ANSWER_PART = 65_536  # bytes of an answer that are given to a connection at once
EXAMPLE = "Example: curl --data-binary @photograph.jpg ADDRESS, or curl -F image=@photograph.jpg."


class AdmissionMiddleware:
    """An ASGI application behind the checks of who may ask."""

    def __init__(self, app: App, admission: Admission) -> None:
        self._app, self._admission = app, admission
        self._tokens = [_digest(token.encode()) for token in admission.settings.tokens]

    async def __call__(self, scope: ASGIMessage, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, headers = time.perf_counter(), Headers(scope=scope)
        exchange = HTTPExchange(scope, headers, receive, send, self._admission)
        # Whatever answers GET answers HEAD, less the body, which uvicorn leaves out.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner = {**scope, "method": method, "request_id": exchange.request_id}
        try:
            self._check(scope, headers)
            await exchange.run(self._app, inner)
        except HTTPError as error:
            await exchange.refuse(error)
        except Exception as error:  # Starlette raises again what it has answered
            if not exchange.status:
                await exchange.refuse(self._admission.explain(Request(inner), error))
        finally:
            exchange.close()
            route = getattr(inner.get("route"), "path", "other")
            seconds = time.perf_counter() - start
            self._admission.on_answer(exchange.describe(route, seconds))

    def _check(self, scope: ASGIMessage, headers: Headers) -> None:
        settings = self._admission.settings
        host = headers.get("host", "")
        if not is_allowed_host(host, settings.hosts):
            what = f"This server does not answer to the name {host[:200]!r}."
            raise HTTPError(421, what, "Start it with --allow-host NAME, or use its address.")
        if scope["method"] not in READS:
            if refusal := self._admission.find_refusal():
                raise refusal
            if is_foreign(headers):
                what = "A page of another origin sent this request."
                raise HTTPError(403, what, "Send it from the server's own page, or from a program.")
        path = scope["path"]
        if self._tokens and path not in PUBLIC and not path.startswith("/static/"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            digest = _digest(given.strip().encode("latin-1"))  # as the bytes came
            found = [hmac.compare_digest(digest, token) for token in self._tokens]
            if scheme.lower() != "bearer" or not any(found):
                raise HTTPError(
                    401, "The request has no token, or a wrong one.",
                    "Send the header Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip


class HTTPExchange:
    """A request and its answer, counted as they come: a body's announced length may be a lie.

    It takes a place of `Admission` from the body's last byte until the answer begins.
    """

    def __init__(
        self,
        scope: ASGIMessage,
        headers: Headers,
        receive: Receive,
        send: Send,
        admission: Admission,
    ) -> None:
        self.request_id = make_request_id(headers.get("x-request-id", ""))
        self.status = 0
        self._scope, self._headers, self._admission = scope, headers, admission
        self._receive, self._send = receive, send
        self._is_read = scope["method"] in READS
        self._has_place = self._is_replaced = False
        self._length = headers.get("content-length", "0")
        self._is_whole = self._length == "0" and "transfer-encoding" not in headers
        self._bytes_in = self._bytes_out = 0
        self._body = self._answer = 0  # bytes that count in `Admission`
        self._gzip: zlib._Decompress | None = None
        self._deadline: asyncio.Timeout | None = None  # while the application has it

    async def run(self, app: App, scope: ASGIMessage) -> None:
        """Give the request to an application, for as long as it and its answer may take."""
        try:
            async with asyncio.timeout(None) as self._deadline:
                self._begin()
                await app(scope, self.receive, self.send)
        except TimeoutError:
            raise self._admission.make_timeout_error(self._is_whole) from None
        finally:
            self._deadline = None

    def _begin(self) -> None:
        """Refuse a body that says itself that it cannot be read; else set the deadline."""
        most = self._admission.settings.max_bytes
        if self._length.isdecimal() and int(self._length) > most:
            raise self._admission.make_size_error()
        match self._headers.get("content-encoding", "identity").strip().lower():
            case "gzip" | "x-gzip":
                self._gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            case "identity" | "":
                pass
            case other:
                what = f"The body is encoded as {other[:40]!r}, which this server does not read."
                raise HTTPError(415, what, "Send it as it is, or with Content-Encoding: gzip.")
        self._start = asyncio.get_running_loop().time()
        if self._is_whole or self._is_read:
            self._end_body()
        self._reschedule()

    async def receive(self) -> ASGIMessage:
        """Return the next part of the body, as ASGI's `receive`, decoded."""
        message = await self._receive()
        if self._is_whole or message["type"] != "http.request":
            return message
        is_last = not message.get("more_body", False)
        part = message.get("body", b"")
        self._bytes_in += len(part)
        if self._gzip is not None:
            part = message["body"] = self._decode(part, is_last)
        self._body += len(part)
        self._admission.hold_bytes(len(part))
        if self._body > self._admission.settings.max_bytes:
            raise self._admission.make_size_error()
        if is_last:
            self._end_body()
        self._reschedule()
        return message

    async def send(self, message: ASGIMessage) -> None:
        """Send a part of the answer, as ASGI's `send`, in pieces that a client has to read."""
        if message["type"] == "http.response.start":
            await self._begin_answer(message)
        elif not self._is_replaced:
            body, more = message.get("body", b""), message.get("more_body", False)
            self._bytes_out += len(body)
            for at in range(0, max(1, len(body)), ANSWER_PART):
                rest = more or at + ANSWER_PART < len(body)
                part = {"body": body[at : at + ANSWER_PART], "more_body": rest}
                await self._send({"type": "http.response.body", **part})

    async def refuse(self, error: HTTPError) -> None:
        """Answer with an error, unless an answer has begun."""
        if not self.status:
            await error.to_response(self.request_id)(self._scope, self._receive, self.send)

    def close(self) -> None:
        """Give back what it held."""
        self._give_place()
        self._admission.body_bytes -= self._body
        self._admission.answer_bytes -= self._answer

    def describe(self, route: str, seconds: float) -> Answered:
        """Return what is known of it, now that it is over."""
        client = self._scope.get("client") or ("",)
        return Answered(
            self.request_id, client[0], self._scope["method"], self._scope["path"],
            route, self.status or 499, seconds, self._bytes_in, self._bytes_out,
        )  # fmt: skip

    async def _begin_answer(self, message: ASGIMessage) -> None:
        self._give_place()
        length = int(Headers(raw=message["headers"]).get("content-length", "0"))
        if length > ANSWER_PART:  # less is the system's as soon as it is sent
            try:
                self._admission.hold_answer(length)
            except HTTPError as error:
                await self.refuse(error)
                self._is_replaced = True
                return
            self._answer = length
        own = [(b"x-request-id", self.request_id.encode())]
        if self._admission.is_draining or not self._is_whole:  # what it does not want to read
            own.append((b"connection", b"close"))
        self.status = message["status"]
        self._reschedule(length)
        await self._send({**message, "headers": [*message["headers"], *COMMON_HEADERS, *own]})

    def _decode(self, part: bytes, is_last: bool) -> bytes:
        """Unpack a part of a gzip file, to a byte past the limit at most."""
        assert self._gzip is not None
        room = self._admission.settings.max_bytes - self._body
        try:
            found = self._gzip.decompress(part, room + 1)
        except zlib.error:
            raise HTTPError(400, "The body is not the gzip that it is said to be.") from None
        is_cut = is_last and not self._gzip.eof and len(found) <= room  # else it is too large
        if self._gzip.unused_data or is_cut:
            raise HTTPError(400, "The body is more or less than one whole gzip file.")
        return found

    def _end_body(self) -> None:
        self._is_whole = True
        path = self._scope["path"]
        if not self._is_read or not (path in UNCOUNTED or path.startswith("/static/")):
            self._admission.take_place(not self._is_read)
            self._has_place = True

    def _give_place(self) -> None:
        if self._has_place:
            self._has_place = False
            self._admission.give_place(not self._is_read)

    def _reschedule(self, answer: int = 0) -> None:
        """Set the deadline: bytes that have come earn time; a whole body has that of an answer."""
        if self._deadline is None or self._deadline.expired():
            return
        settings = self._admission.settings
        if self._is_whole:
            now = asyncio.get_running_loop().time()
            when = now + settings.request_seconds + answer / settings.slowest
        else:
            when = self._start + settings.body_seconds + self._bytes_in / settings.slowest
        self._deadline.reschedule(when)


async def read_images(request: Request, max_images: int) -> list[bytes]:
    """Return the files of a multipart form, or the body itself as one file, in memory alone.

    It is a 400 when there is no file, or the form cannot be read; a 413 when there are too many.
    """
    media_type = request.headers.get("content-type", "")
    if not media_type.lower().startswith("multipart/form-data"):
        body = await request.body()
        if not body:
            raise HTTPError(400, "The request has no image.", EXAMPLE)
        return [body]
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=max_images, max_fields=max_images
    )
    parser.spool_max_size = IN_MEMORY
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            what = "The form has more parts than are taken at once."
            fix = f"Send at most {max_images} images in one request."
            raise HTTPError(413, what, fix) from None
        raise HTTPError(400, f"The form cannot be read: {error.message}", EXAMPLE) from None
    except (LookupError, ValueError):  # a character set that there is not, or that does not fit
        raise HTTPError(400, "The form cannot be read.", EXAMPLE) from None
    parts = [value for _, value in form.multi_items()]
    files = [await part.read() for part in parts if isinstance(part, UploadFile)]
    await form.close()
    if not files:
        raise HTTPError(400, "The form has no file.", EXAMPLE)
    return files


def make_request_id(given: str = "") -> str:
    """Return the id that a client or a proxy gave a request, or a new one.

    Examples
    --------
    >>> make_request_id("of-a-proxy.1"), len(make_request_id("two words"))
    ('of-a-proxy.1', 16)
    """
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)


def _digest(token: bytes) -> bytes:
    """Return what is compared in place of a token: of one length, so that none is told."""
    return hashlib.sha256(token).digest()


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
