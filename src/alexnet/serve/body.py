"""A request's body as it comes: how much, how slowly, and how many at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from alexnet.serve.refusals import Refusal, busy
from alexnet.serve.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Room:
    """How much is in hand: requests whose bodies are whole, and the bytes of all bodies.

    A request whose body is still coming takes no place, or a hundred clients that send a byte now
    and then would keep all others out.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.answering = 0
        self.bytes = 0

    def check(self) -> None:
        """See that one more request could be answered.

        Raises
        ------
        Refusal
            503 where it could not.
        """
        if self.answering >= self._settings.max_requests:
            raise busy("The server is answering as many requests as it can.")

    def hold(self, part: int) -> None:
        """Take some bytes.

        Raises
        ------
        Refusal
            503 where there is no room for them; they count until they are given back all the same.
        """
        self.bytes += part
        if self.bytes > self._settings.max_bytes_in_hand:
            raise busy("The server holds as many bytes of requests as it can.")


class Body:
    """One request's body, counted as it comes: its announced length may be a lie.

    Parameters
    ----------
    receive : callable
        ASGI's, which gives the parts.
    settings : Settings
        Its limits.
    room : Room
        What it takes a place in, from its last byte to `close`.
    """

    def __init__(self, receive: Receive, settings: Settings, room: Room) -> None:
        self._receive, self._settings, self._room = receive, settings, room
        self._start = time.monotonic()
        self._bytes = 0
        self._is_whole = self._has_place = False
        self._on_whole: Callable[[], None] = lambda: None

    def check_announced(self, headers: dict[str, str]) -> None:
        """Refuse a body that says itself that it is too large, before any of it is read.

        Raises
        ------
        Refusal
            413 when it does.
        """
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.max_bytes:
            raise self._too_large()
        self._is_whole = length == "0" and "transfer-encoding" not in headers

    def when_whole(self, call: Callable[[], None]) -> None:
        """Call something when the last byte has come; at once where there is none to come."""
        if self._is_whole:
            call()
        self._on_whole = call

    async def receive(self) -> Message:
        """Return the next part.

        Raises
        ------
        Refusal
            413 past the limit of bytes, 408 past the time that the bytes so far have earned, 503
            where others have taken the room.
        """
        if self._is_whole:
            return await self._receive()
        settings = self._settings
        earned = settings.body_seconds + self._bytes / settings.slowest
        try:
            async with asyncio.timeout(self._start + earned - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408, "The request's body came too slowly.", "Send it again, over a faster line."
            ) from None
        part = len(message.get("body", b""))
        self._bytes += part
        self._room.hold(part)
        if self._bytes > settings.max_bytes:
            raise self._too_large()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._is_whole = True
            self._room.check()
            self._room.answering += 1
            self._has_place = True
            self._on_whole()
        return message

    def close(self) -> None:
        """Give the room back: the request is answered."""
        self._room.bytes -= self._bytes
        self._room.answering -= self._has_place

    def _too_large(self) -> Refusal:
        most = f"{self._settings.max_bytes:,} bytes"
        return Refusal(413, f"The request is larger than {most}.", f"Send at most {most}.")
