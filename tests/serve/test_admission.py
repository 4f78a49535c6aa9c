"""What all requests together may hold, and the time that a body earns by coming."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from alexnet.serve.admission import Admission, ASGIMessage, HTTPError, ServerSettings
from alexnet.serve.exchange import AdmissionMiddleware

SETTINGS = ServerSettings(
    max_bytes=100, max_bytes_in_hand=150, max_requests=2, body_seconds=0.2, slowest=10,
    request_seconds=0.3,
)  # fmt: skip
Parts = Sequence[tuple[float, bytes]]  # each comes after some seconds, the last ends the body


class Client:
    """A request whose body comes in parts, sent to an application that reads all of it."""

    def __init__(self, admission: Admission, parts: Parts, announced: str | None = None) -> None:
        headers = {b"host": b"localhost"}
        if parts:
            headers[b"transfer-encoding"] = b"chunked"
        if announced is not None:
            headers[b"content-length"] = announced.encode()
        self.scope: ASGIMessage = {
            "type": "http", "method": "POST", "path": "/", "headers": list(headers.items()),
        }  # fmt: skip
        self.parts = list(parts)
        self.read: bytes | None = None  # what the application was given
        self.status = 0
        self.app_seconds = 0.0  # that the application takes after the body
        self.held = asyncio.Event()  # it answers when this is set
        self.held.set()
        self._send = AdmissionMiddleware(self.app, admission)

    async def app(self, scope, receive, send) -> None:
        body = b""
        while self.scope["headers"][1:]:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        self.read = body
        await asyncio.sleep(self.app_seconds)
        await self.held.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive(self) -> ASGIMessage:
        seconds, part = self.parts.pop(0)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message: ASGIMessage) -> None:
        self.status = message.get("status", self.status)

    async def ask(self) -> int:
        await self._send(self.scope, self.receive, self.send)
        return self.status


def ask(admission: Admission, *parts: tuple[float, bytes], **more) -> int:
    async def one() -> int:
        return await Client(admission, parts, **more).ask()

    return asyncio.run(one())


def test_a_body_is_cut_at_its_limit_whatever_it_announced():
    admission = Admission(SETTINGS)
    assert ask(admission, (0, bytes(60)), (0, bytes(41)), announced="50") == 413
    assert ask(admission, (0, bytes(60)), (0, bytes(40)), announced="50") == 200
    assert ask(admission, (0, b""), announced="101") == 413
    assert (admission.body_bytes, admission.requests) == (0, 0)


def test_a_body_that_says_it_is_too_large_is_not_read():
    async def one() -> Client:
        client = Client(Admission(SETTINGS), [(0, bytes(101))], "101")
        assert await client.ask() == 413
        return client

    client = asyncio.run(one())
    assert client.read is None
    assert len(client.parts) == 1


def test_all_bodies_together_are_bounded_and_room_is_given_back():
    async def two() -> None:
        admission = Admission(SETTINGS)
        first = Client(admission, [(0, bytes(100))])
        first.held.clear()
        running = asyncio.create_task(first.ask())
        await asyncio.sleep(0.05)
        assert (admission.body_bytes, admission.requests) == (100, 1)
        assert await Client(admission, [(0, bytes(51))]).ask() == 503
        first.held.set()
        assert await running == 200
        assert (admission.body_bytes, admission.requests) == (0, 0)
        assert await Client(admission, [(0, bytes(100))]).ask() == 200

    asyncio.run(two())


def test_a_request_takes_a_place_when_its_body_is_whole_and_not_before():
    async def three() -> None:
        admission = Admission(replace(SETTINGS, body_seconds=5))
        clients = [Client(admission, [(0, b"a"), (0.1, b"b")]) for _ in range(3)]
        for client in clients:
            client.held.clear()
        running = [asyncio.create_task(client.ask()) for client in clients]
        await asyncio.sleep(0.05)
        assert admission.requests == 0
        assert admission.find_refusal() is None
        await asyncio.sleep(0.1)
        assert admission.requests == 2
        assert isinstance(admission.find_refusal(), HTTPError)
        for client in clients:
            client.held.set()
        assert sorted(await asyncio.gather(*running)) == [200, 200, 503]
        assert sorted(client.read or b"" for client in clients) == [b"", b"ab", b"ab"]
        assert admission.requests == 0

    asyncio.run(three())


def test_a_body_earns_time_by_coming():
    """Ten bytes earn a second; without them 0.2 s is all there is."""
    admission = Admission(SETTINGS)
    assert ask(admission, (0, bytes(10)), (0.5, b"end")) == 200
    assert ask(admission, (0, b"a"), (0.5, b"end")) == 408
    assert ask(Admission(replace(SETTINGS, body_seconds=5)), (0.5, b"end")) == 200


def test_the_time_of_an_answer_begins_with_the_last_byte():
    """It is 0.3 s; the first body takes longer, the answers before the second 0.4 s."""

    async def one(parts: Parts, app_seconds: float) -> int:
        client = Client(Admission(replace(SETTINGS, body_seconds=5)), parts)
        client.app_seconds = app_seconds
        return await client.ask()

    assert asyncio.run(one([(0.4, b"a")], 0.1)) == 200
    assert asyncio.run(one([(0, b"a")], 0.4)) == 503
    assert asyncio.run(one([], 0.4)) == 503  # there is no body: at once
    assert asyncio.run(one([], 0.1)) == 200
