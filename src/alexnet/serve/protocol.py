"""HTTP/1.1 on one connection, with the deadlines that uvicorn's protocol lacks.

uvicorn waits for ever for a request's first lines and for a client that does not read, goes on
reading a body that nobody wants, and keeps as many connections as come. How a body may come, once
a request is there, is `admission`'s.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet.serve.admission import Admission, HTTPError

LINGER_SECONDS = 1.0  # that an unread body is left in the socket, so that the answer arrives


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
        try:
            oldest = self._admission.admit_connection(len(self.connections))
        except HTTPError as error:
            self._refuse(error)
            return
        if isinstance(oldest, HTTPProtocol):
            oldest.abort()
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._abort_after(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request that has begun must have its headers whole by the deadline."""
        if self.transport.is_closing():
            return
        if self._is_between_requests() and self._head_timer is None:
            self._start_waiting()
        super().data_received(data)
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
                self._admission.waiting_connections[self] = None  # until uvicorn's keep-alive ends

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that sent no further request."""
        super().timeout_keep_alive_handler()
        self._abort_after(self._settings.head_seconds)

    def pause_writing(self) -> None:
        """Give a client that does not read a time to read."""
        super().pause_writing()
        self._abort_after(self._settings.request_seconds)

    def resume_writing(self) -> None:
        """Go on with a client that reads."""
        super().resume_writing()
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
                self.transport.write(error.to_bytes())
            self.transport.close()
        self._abort_after(self._settings.head_seconds)

    def _close_slowly(self) -> None:
        """Say that nothing follows, read nothing more, and close when the answer has arrived.

        A socket that is closed over unread bytes is reset, and the answer may be lost on the way.
        """
        self.flow.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._abort_after(LINGER_SECONDS)
