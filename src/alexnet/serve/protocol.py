"""HTTP/1.1 on one connection, with the deadlines and bounds that uvicorn's protocol lacks.

uvicorn waits for ever for a request's first lines and for a client that does not read, goes on
reading a body that nobody wants, and keeps as many connections as come. How a body may come, once
a request is there, is `exchange`'s. A request with images that there is no room for is refused
here, when its headers have come: past the bound that is most of what comes.
"""

import asyncio
from itertools import chain
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from alexnet.serve.admission import Admission, Answered, HTTPError
from alexnet.serve.exchange import make_request_id

LINGER_SECONDS = 1.0  # that an unread body is left in the socket, so that the answer arrives
MAX_HEAD = 65_536  # bytes of a request line and headers
MAX_PIPELINED = 16  # requests that wait on a connection for the answer to the one before
SMALL_ANSWER = 16_384  # bytes: the headers of an answer and so short a body are sent together
CLOSE = (b"connection", b"close")


class HTTPProtocol(HttpToolsProtocol):
    """uvicorn's protocol; a connection is closed that does not send a request, or does not read."""

    def __init__(self, admission: Admission, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._settings = admission.settings
        self._admission = admission
        self._head_timer: asyncio.TimerHandle | None = None  # until a request's headers are whole
        self._abort_timer: asyncio.TimerHandle | None = None  # for who does not read or leave
        self._is_in_head = True  # else a body is coming
        self._head_bytes = 0  # of headers that are not yet whole
        self._refusal: HTTPError | None = None  # of the request that is coming

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; past the cap the longest waiting connection is aborted."""
        super().connection_made(transport)
        self._writer: Any = _Writer(self)
        try:
            oldest = self._admission.admit_connection(len(self.connections))
        except HTTPError as error:
            self._refuse(error)
            return
        if oldest is not None:
            oldest.abort()
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._abort_after(None)
        self._admission.stuck_connections.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request that has begun must have its headers whole by the deadline."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._refusal is not None:  # its body is still coming, or it is the last
            self._answer_unread(CLOSE)
            self._close_slowly()
        elif not self._is_in_head:
            self._admission.waiting_connections[self] = None  # its deadline is the body's
        elif self._is_idle() and self.timeout_keep_alive_task is None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self.send_400_response("")
            elif self._head_timer is None:
                self._start_waiting()

    def on_headers_complete(self) -> None:
        """Begin a request, unless it has images that there is no room for."""
        self._stop_waiting()
        self._is_in_head, self._head_bytes = False, 0
        if len(self.url) + sum(map(len, chain.from_iterable(self.headers))) > MAX_HEAD:
            raise ValueError("too long a head")  # which httptools makes a 400
        if self._is_idle() and self.parser.get_method() == b"POST":
            self._refusal = self._admission.find_refusal()
        if self._refusal is None:
            super().on_headers_complete()
            if len(self.pipeline) > MAX_PIPELINED:
                raise ValueError("too many requests at once")

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, or pass over it."""
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer a request that is refused; its connection is kept, since nothing is unread."""
        self._is_in_head = True
        if self._refusal is None:
            super().on_message_complete()
        elif self.parser.should_keep_alive() and not self._admission.is_draining:
            self._answer_unread()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            self._admission.kept_connections[self] = None

    def on_response_complete(self) -> None:
        """Close a connection whose request's body was not read; else wait for its next request."""
        self._writer.flush()
        if self.transport.is_closing():
            self._abort_after(self._settings.head_seconds)
        elif self._is_idle() and not self._is_in_head:
            self._close_slowly()
        else:
            super().on_response_complete()
            if self._is_idle() and self._head_timer is None:
                self._admission.kept_connections[self] = None  # until uvicorn's keep-alive ends

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that sent no further request."""
        super().timeout_keep_alive_handler()
        self._abort_after(self._settings.head_seconds)

    def shutdown(self) -> None:
        """Answer what was asked, or is on its way on a connection that is kept, and close."""
        self._admission.is_draining = True  # each answer says now that it is the last
        if self._is_idle():
            self.loop.call_later(LINGER_SECONDS, self._close_idle)

    def pause_writing(self) -> None:
        """Give a client that does not read a time to read."""
        super().pause_writing()
        self._admission.stuck_connections[self] = None
        self._abort_after(self._settings.request_seconds)

    def resume_writing(self) -> None:
        """Go on with a client that reads."""
        super().resume_writing()
        self._admission.stuck_connections.pop(self, None)
        self._abort_after(None)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of every error."""
        self._refuse(HTTPError(400, "What came is no HTTP request.", "Send one as RFC 9112 says."))

    def abort(self) -> None:
        """End at once, for another connection."""
        self._stop_waiting()
        self._admission.stuck_connections.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    def close_after_answer(self) -> None:
        """Close a connection whose answer said so, but not over what is still sent to it."""
        if self._is_in_head:
            self.transport.close()
        else:
            self._close_slowly()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = self._writer
        super()._start_asgi_task(cycle, app)

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _close_idle(self) -> None:
        if self._is_idle():
            self.transport.close()
            self._abort_after(LINGER_SECONDS)

    def _start_waiting(self) -> None:
        self._stop_waiting()
        self._admission.waiting_connections[self] = None
        late = HTTPError(408, "The request's headers came too slowly.", "Send them at once.")
        self._head_timer = self.loop.call_later(self._settings.head_seconds, self._refuse, late)

    def _stop_waiting(self) -> None:
        self._admission.waiting_connections.pop(self, None)
        self._admission.kept_connections.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _abort_after(self, seconds: float | None) -> None:
        """Cut the line after some seconds, or never."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._abort_timer = (
            None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
        )

    def _refuse(self, error: HTTPError) -> None:
        """Answer without a request, unless an answer is on its way, and close."""
        if not self.transport.is_closing():
            if self.cycle is None or not self.cycle.response_started or self._is_idle():
                self._write(error, make_request_id(), "", "", CLOSE)
            self.transport.close()
        self._abort_after(self._settings.head_seconds)

    def _answer_unread(self, *more: tuple[bytes, bytes]) -> None:
        """Refuse the request whose headers have come."""
        error, self._refusal = self._refusal, None
        assert error is not None
        given = dict(self.headers).get(b"x-request-id", b"").decode("latin-1")
        path = self.url.partition(b"?")[0].decode("latin-1")
        self._write(error, make_request_id(given), "POST", path, *more)

    def _write(
        self, error: HTTPError, request_id: str, method: str, path: str,
        *more: tuple[bytes, bytes],
    ) -> None:  # fmt: skip
        answer = error.to_bytes(request_id, [*self.server_state.default_headers, *more])
        self.transport.write(answer)
        client = self.client[0] if self.client else ""
        self._admission.on_answer(
            Answered(request_id, client, method, path, "unread", error.status, 0, 0, len(answer))
        )

    def _close_slowly(self) -> None:
        """Say that nothing follows, read nothing more, and close when the answer has arrived.

        A socket that is closed over unread bytes is reset, and the answer may be lost on the way.
        """
        self.flow.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._abort_after(LINGER_SECONDS)


class _Writer:
    """What uvicorn writes answers to: headers and a short body go to the system together.

    It would also close over a body that nobody reads.
    """

    def __init__(self, protocol: HTTPProtocol) -> None:
        self._protocol, self._transport = protocol, protocol.transport
        self._held = b""
        self.is_closing = protocol.transport.is_closing

    def write(self, data: bytes) -> None:
        """Hold the first bytes until others follow, or nothing else is to be done."""
        if not self._held and len(data) < SMALL_ANSWER:
            self._held = data
            self._protocol.loop.call_soon(self.flush)
        else:
            self._transport.write(self._held + data)
            self._held = b""

    def flush(self) -> None:
        """Send what is held."""
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)

    def close(self) -> None:
        """Send what is held, and close."""
        self.flush()
        self._protocol.close_after_answer()
