"""HTTP/1.1 on one connection, with the deadlines that uvicorn's protocol lacks.

uvicorn waits for ever for a request's first lines and for a client that does not read, goes on
reading a body that nobody wants, and keeps as many connections as come. How a body may come, once
a request is there, is `exchange`'s. A request with images that there is no room for is refused
here, before it is parsed: past the bound that is most of what comes.
"""

import asyncio
import re
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet.serve.admission import Admission, Answered, HTTPError
from alexnet.serve.exchange import make_request_id

LINGER_SECONDS = 1.0  # that an unread body is left in the socket, so that the answer arrives
CLOSE = (b"connection", b"close")
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?=\r\n)", re.IGNORECASE)
MORE_THAN_A_BODY = re.compile(rb"\r\n(transfer-encoding|connection|expect):", re.IGNORECASE)


class HTTPProtocol(H11Protocol):
    """uvicorn's protocol; a connection is closed that does not send a request, or does not read."""

    def __init__(self, admission: Admission, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._settings = admission.settings
        self._admission = admission
        self._head_timer: asyncio.TimerHandle | None = None  # until a request's headers are whole
        self._abort_timer: asyncio.TimerHandle | None = None  # for who does not read or leave

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; past the cap the longest waiting connection is aborted."""
        super().connection_made(transport)
        self._slow: Any = _SlowTransport(self)
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
        if self._is_between_requests():
            if data.startswith(b"POST ") and self.conn.trailing_data == (b"", False):
                refusal = self._admission.find_refusal()
                if refusal is not None and self._refuse_unread(data, refusal):
                    return
            if self._head_timer is None:
                self._start_waiting()
        super().data_received(data)
        if self.cycle is not None:
            self.cycle.transport = self._slow
        if not self._is_between_requests():
            self._stop_waiting()
            if self.conn.their_state is h11.SEND_BODY:
                self._admission.waiting_connections[self] = None  # its deadline is the body's

    def on_response_complete(self) -> None:
        """Close a connection whose request's body was not read; else wait for its next request."""
        if self.transport.is_closing():
            self._abort_after(self._settings.head_seconds)
        elif self.conn.their_state is not h11.DONE:
            self._close_slowly()
        else:
            super().on_response_complete()
            if self._is_between_requests() and self._head_timer is None:
                self._admission.kept_connections[self] = None  # until uvicorn's keep-alive ends

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that sent no further request."""
        super().timeout_keep_alive_handler()
        self._abort_after(self._settings.head_seconds)

    def shutdown(self) -> None:
        """Answer what was asked, or is on its way on a connection that is kept, and close."""
        self._admission.is_draining = True  # each answer says now that it is the last
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            self._abort_after(LINGER_SECONDS)

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
        self.connections.discard(self)
        self.transport.abort()

    def _is_between_requests(self) -> bool:
        """Whether the headers of a next request are not yet whole."""
        return self.conn.their_state is h11.IDLE

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
            cycle = self.cycle
            if cycle is None or not cycle.response_started or cycle.response_complete:
                self._write(error, "", CLOSE)
            self.transport.close()
        self._abort_after(self._settings.head_seconds)

    def _refuse_unread(self, data: bytes, error: HTTPError) -> bool:
        """Refuse a request of which the headers have come; return whether they have.

        The connection is kept where the body has come with them, and nothing after it.
        """
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = data[: end + 2]
        lengths = LENGTH.findall(head)
        is_whole = [int(length) for length in lengths] == [len(data) - end - 4]
        is_kept = is_whole and not MORE_THAN_A_BODY.search(head) and not self._admission.is_draining
        path = head.split(b" ", 2)[1].partition(b"?")[0].decode("ascii", "replace")
        self._unset_keepalive_if_required()
        self._stop_waiting()
        if is_kept:
            self._write(error, path)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            self._admission.kept_connections[self] = None
        else:
            self._write(error, path, CLOSE)
            self._close_slowly()
        return True

    def _write(self, error: HTTPError, path: str, *more: tuple[bytes, bytes]) -> None:
        request_id = make_request_id()
        answer = error.to_bytes(request_id, [*self.server_state.default_headers, *more])
        self.transport.write(answer)
        client = self.client[0] if self.client else ""
        self._admission.on_answer(
            Answered(request_id, client, "", path, "unread", error.status, 0.0, 0, len(answer))
        )

    def close_after_answer(self) -> None:
        """Close a connection whose answer said so, not before what is sent for it is there."""
        if self.conn.their_state in (h11.SEND_BODY, h11.IDLE):
            self._close_slowly()
        else:
            self.transport.close()

    def _close_slowly(self) -> None:
        """Say that nothing follows, read nothing more, and close when the answer has arrived.

        A socket that is closed over unread bytes is reset, and the answer may be lost on the way.
        """
        self.flow.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._abort_after(LINGER_SECONDS)


class _SlowTransport:
    """What uvicorn writes an answer to; it would close over a body that nobody reads."""

    def __init__(self, protocol: HTTPProtocol) -> None:
        self.write, self.is_closing = protocol.transport.write, protocol.transport.is_closing
        self.close = protocol.close_after_answer
