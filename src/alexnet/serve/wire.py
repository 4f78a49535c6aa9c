"""The protocol of a connection, with the bounds that uvicorn's lacks.

uvicorn waits for ever for a request's first lines and for a client that does not read, goes on
reading a body that nobody wants, and keeps as many connections as come. How a body may come, once
a request is there, is `gate`'s.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet.serve.refusals import raw_answer
from alexnet.serve.settings import Settings

LINGER_SECONDS = 1.0  # that an unread body is left in the socket, so that the answer arrives


class Wire(H11Protocol):
    """uvicorn's HTTP/1.1, whose connections must come to the point.

    Parameters
    ----------
    settings : Settings
        Deadlines and the number of connections.
    waiting : dict
        The connections of this process on which no whole request has come, the oldest first.
    """

    def __init__(self, settings: Settings, waiting: "dict[Wire, None]", **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._settings = settings
        self._waiting = waiting
        self._deadline: asyncio.TimerHandle | None = None  # of a request's headers
        self._end: asyncio.TimerHandle | None = None  # of a client that does not read or leave

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; past the cap the longest waiting connection gives way."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            if not self._waiting:
                self._refuse(503, "The server has as many connections as it keeps.", "Try later.")
                return
            next(iter(self._waiting)).give_way()
        self._wait(self._settings.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._abort_after(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request that has begun must have its headers whole by the deadline."""
        if self.transport.is_closing():
            return
        if self._is_between_requests() and self._deadline is None:
            self._wait(self._settings.head_seconds)
        super().data_received(data)
        if not self._is_between_requests():
            self._stop_waiting()
            if self.conn.their_state is h11.SEND_BODY:
                self._waiting[self] = None  # it may give way; `gate` has its deadline

    def on_response_complete(self) -> None:
        """Close a connection whose request's body was not read; else wait for its next request."""
        if self.transport.is_closing():
            self._abort_after(self._settings.head_seconds)
        elif self.conn.their_state is not h11.DONE:
            self._close_slowly()
        else:
            super().on_response_complete()
            if self._is_between_requests() and self._deadline is None:
                self._waiting[self] = None  # for as long as uvicorn keeps idle connections

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
        self._refuse(400, "What came is no HTTP request.", "Send one as RFC 9112 says.")

    def give_way(self) -> None:
        """End at once, for another connection."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _is_between_requests(self) -> bool:
        """Whether the headers of a next request are not yet whole."""
        return self.conn.their_state is h11.IDLE

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._waiting[self] = None
        self._deadline = self.loop.call_later(seconds, self._head_is_late)

    def _stop_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _abort_after(self, seconds: float | None) -> None:
        """Cut the line after some seconds, or never."""
        if self._end is not None:
            self._end.cancel()
        self._end = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def _head_is_late(self) -> None:
        self._refuse(408, "The request's headers came too slowly.", "Send them at once.")

    def _refuse(self, status: int, what: str, fix: str) -> None:
        """Answer without a request, unless an answer is on its way, and close."""
        if not self.transport.is_closing():
            if (
                self.cycle is None
                or not self.cycle.response_started
                or self.cycle.response_complete
            ):
                self.transport.write(raw_answer(status, what, fix))
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
