"""What a connection may send: against real sockets, with an application of a few lines behind."""

import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from alexnet.serve.admission import Admission, Answered, ServerSettings  # noqa: E402
from alexnet.serve.exchange import AdmissionMiddleware  # noqa: E402
from alexnet.serve.protocol import HTTPProtocol  # noqa: E402

HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /x?y=z HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"


async def answer(scope, receive, send) -> None:
    """Say how long the body is; /early does not read it, /big has a megabyte to say."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while scope["method"] == "POST" and scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    said = bytes(1_000_000) if scope["path"] == "/big" else str(len(body)).encode()
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


class Line:
    """A server with short deadlines, and the admission that it asks."""

    def __init__(self) -> None:
        self.answered: list[Answered] = []
        settings = ServerSettings(head_seconds=1, body_seconds=1, idle_seconds=2)
        self.admission = Admission(settings, self.answered.append)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.bind(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        config = uvicorn.Config(
            AdmissionMiddleware(answer, self.admission),
            http=partial(HTTPProtocol, self.admission), ws="none", log_level="critical",
            timeout_keep_alive=2,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def talk(self, *parts: bytes, seconds: float = 0.3) -> tuple[list[int], bool, bytes]:
        """Send parts, a moment apart; return the statuses, whether it was closed, and all bytes."""
        found, closed = b"", False
        with socket.create_connection(self.address, timeout=seconds) as line:
            try:
                for part in parts:
                    line.sendall(part)
                    time.sleep(0.03)
                while part := line.recv(1 << 20):
                    found += part
                closed = True
            except TimeoutError:
                pass
            except ConnectionResetError:
                closed = True
        return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]], closed, found


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    found = Line()
    yield found
    found.server.should_exit = True
    found.thread.join(10)
    assert not found.thread.is_alive()


@pytest.fixture
def full(line) -> Iterator[Line]:
    """Return the server with no room for images."""
    line.admission.requests += 10_000
    yield line
    line.admission.requests -= 10_000


@pytest.mark.parametrize(
    ("parts", "statuses", "closed", "end"),
    [
        ((GET,), [200], False, b"\r\n0"),
        ((POST, b"hel", b"lo"), [200], False, b"\r\n5"),
        (((POST + b"hello") * 3,), [200] * 3, False, b"\r\n5"),
        ((b"GET /big" + GET[5:],), [200], False, bytes(99)),
        ((b"HEAD /big" + GET[5:],), [200], False, b"\r\n\r\n"),
        ((POST.replace(b"/x", b"/early"), b"he"), [200], True, b"\r\n0"),
        ((POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
          b"5\r\nhello\r\n0\r\n\r\n"), [200], False, b"\r\n5"),
        ((POST.replace(b"Host", b"Expect: 100-continue\r\nHost"), b"hello"), [100, 200], False,
         b"\r\n5"),
        ((GET.replace(b"Host", b"Connection: close\r\nHost"),), [200], True, b"\r\n0"),
        ((GET.replace(b"/1.1", b"/1.0"),), [200], True, b"\r\n0"),
        ((GET.replace(b"Host", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost"),), [200],
         False, b"\r\n0"),
        ((b"GET / HTTP/1.1\r\n\r\n",), [421], False, b"}}"),
    ],
    ids=["get", "split", "pipelined", "long", "head", "unread", "chunked", "expect", "close", "1.0",
         "upgrade", "no host"],
)  # fmt: skip
def test_a_request_is_answered(line, parts, statuses, closed, end):
    found = line.talk(*parts)
    assert found[:2] == (statuses, closed)
    assert found[2].endswith(end)
    assert (b"connection: close" in found[2]) == closed
    admission = line.admission
    assert (admission.requests, admission.reads, admission.body_bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01", b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
     b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", GET[:-2] + b"A: " + b"a" * 100_000,
     GET[:-2] + b"A: " + b"a" * 65_600 + b"\r\n\r\n", GET * 40,
     POST[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ids=["TLS", "path", "connect", "half", "long", "pipelined", "two lengths"],
)  # fmt: skip
def test_what_is_no_request_or_too_much_of_one_is_refused_and_closed(line, sent):
    statuses, closed, found = line.talk(sent)
    assert (statuses, closed) in (([400], True), ([], True))  # reset over what was not read
    assert not found or b"RFC 9112" in found


@pytest.mark.parametrize(
    "parts", [(b"GET / HT",), (POST, b"he"), (b"\r\n", b"\r\n"), ()],
    ids=["head", "body", "empty lines", "nothing"],
)  # fmt: skip
def test_who_does_not_go_on_is_told_so_and_closed(line, parts):
    assert line.talk(*parts, seconds=3)[:2] == ([408], True)


@pytest.mark.parametrize(
    ("parts", "statuses", "closed"),
    [
        ((POST + b"hello",), [503], False),
        ((POST + b"hello", POST + b"hello"), [503, 503], False),
        ((POST + b"hello" + GET,), [503, 200], False),
        ((POST, b"hello"), [503], True),
        ((POST.replace(b"Host", b"Connection: close\r\nHost") + b"hello",), [503], True),
        ((POST.replace(b"Host", b"Expect: 100-continue\r\nHost"),), [503], True),
        ((GET,), [200], False),
    ],
    ids=["whole", "twice", "another", "body to come", "close", "expect", "read"],
)
def test_a_full_server_refuses_when_the_headers_have_come(full, parts, statuses, closed):
    found = full.talk(*parts)
    assert found[:2] == (statuses, closed)
    if statuses[0] == 503:
        assert b"Retry-After: 1" in found[2].replace(b"retry-after", b"Retry-After")
        last = [one for one in full.answered if one.status == 503][-1]
        assert (last.route, last.path, last.method) == ("unread", "/x", "POST")
        assert last.request_id.encode() in found[2]
