"""What all bodies together may hold, and the time that a body earns by coming."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from alexnet.serve.body import Body, Message, Receive, Room
from alexnet.serve.refusals import Refusal
from alexnet.serve.settings import Settings

SETTINGS = Settings(
    max_bytes=100, max_bytes_in_hand=150, max_requests=2, body_seconds=0.2, slowest=10
)


def coming(*parts: tuple[float, bytes]) -> Receive:
    """Return ASGI's receive for parts that come each after some seconds, the last ending it."""
    left: Iterator[tuple[int, tuple[float, bytes]]] = iter(enumerate(parts, 1))

    async def receive() -> Message:
        number, (seconds, part) = next(left)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": part, "more_body": number < len(parts)}

    return receive


async def read(body: Body) -> bytes:
    parts = b""
    while True:
        message = await body.receive()
        parts += message["body"]
        if not message["more_body"]:
            return parts


def status(body: Body) -> int:
    with pytest.raises(Refusal) as caught:
        asyncio.run(read(body))
    return caught.value.status


def test_a_body_is_cut_at_its_limit_whatever_it_announced():
    body = Body(coming((0, bytes(60)), (0, bytes(41))), SETTINGS, Room(SETTINGS))
    body.check_announced({"content-length": "50"})
    assert status(body) == 413
    with pytest.raises(Refusal):
        body.check_announced({"content-length": "101"})


def test_all_bodies_together_are_bounded_and_room_is_given_back():
    room = Room(SETTINGS)
    first = Body(coming((0, bytes(100))), SETTINGS, room)
    assert asyncio.run(read(first)) == bytes(100)
    second = Body(coming((0, bytes(51))), SETTINGS, room)
    assert status(second) == 503
    second.close()
    first.close()
    assert (room.bytes, room.answering) == (0, 0)
    assert asyncio.run(read(Body(coming((0, bytes(100))), SETTINGS, room))) == bytes(100)


def test_a_request_takes_a_place_when_its_body_is_whole_and_not_before():
    room = Room(SETTINGS)
    bodies = [Body(coming((0, b"a"), (0, b"b")), SETTINGS, room) for _ in range(3)]

    async def all_begin() -> None:
        for body in bodies:
            await body.receive()

    asyncio.run(all_begin())
    assert room.answering == 0
    room.check()
    assert asyncio.run(read(bodies[0])) == asyncio.run(read(bodies[1])) == b"b"
    assert status(bodies[2]) == 503
    for body in bodies:
        body.close()
    assert room.answering == 0


def test_a_body_earns_time_by_coming():
    """Ten bytes earn a second; without them 0.2 s is all there is."""
    quick = Body(coming((0, bytes(10)), (0.5, b"end")), SETTINGS, Room(SETTINGS))
    assert asyncio.run(read(quick)) == bytes(10) + b"end"
    slow = Body(coming((0, b"a"), (0.5, b"end")), SETTINGS, Room(SETTINGS))
    assert status(slow) == 408
    patient = replace(SETTINGS, body_seconds=5)
    assert asyncio.run(read(Body(coming((0.5, b"end")), patient, Room(patient)))) == b"end"


def test_the_time_of_an_answer_begins_with_the_last_byte():
    called: list[str] = []
    body = Body(coming((0, b"a"), (0, b"b")), SETTINGS, Room(SETTINGS))
    body.when_whole(lambda: called.append("whole"))
    assert not called
    asyncio.run(read(body))
    assert called == ["whole"]
    nothing = Body(coming(), SETTINGS, Room(SETTINGS))
    nothing.check_announced({})
    nothing.when_whole(lambda: called.append("at once"))
    assert called == ["whole", "at once"]
