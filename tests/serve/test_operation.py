"""What an operator relies on: probes, tokens, logs, upgrades, floods of reads, and the end."""

import asyncio
import gzip
import json
import os
import shutil
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from alexnet.cli.serve import _read_tokens
from alexnet.errors import ConfigError
from alexnet.serve.admission import ServerSettings
from alexnet.training.checkpoint import WEIGHTS, Checkpoint, save_checkpoint
from alexnet.training.run import Run
from tests.serve.conftest import Served, httpx, reason

LINES = 90_000  # of metrics: a year of a long training


@pytest.fixture
def copied_run(trained, tmp_path) -> Path:
    """Return a run of this test's own."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/model",
             "/v1/run", "/v1/filters", "/static/main.js", "/nothing", "/v1/predict"],
)  # fmt: skip
def test_head_is_answered_as_get_is_without_the_body(server, path):
    got, head = server.get(path), httpx.head(server.url + path, timeout=30)
    assert (head.status_code, head.content) == (got.status_code, b"")
    if path != "/metrics" and got.status_code == 200:
        assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["content-type"] == got.headers["content-type"]


def test_a_packed_body_is_what_it_unpacks_to(server, photograph):
    plain = server.post("/v1/predict", photograph).json()["predictions"]
    packed = {"Content-Encoding": "gzip"}
    answer = server.post("/v1/predict", gzip.compress(photograph), headers=packed)
    assert answer.json()["predictions"] == plain
    form = httpx.Request("POST", server.url, files={"image": ("a.png", photograph)})
    kind = {"Content-Type": form.headers["content-type"], **packed}
    answer = server.post("/v1/predict", gzip.compress(form.read()), headers=kind)
    assert answer.json()["predictions"] == plain


@pytest.mark.parametrize(
    ("encoding", "body", "status", "word"),
    [
        ("gzip", gzip.compress(bytes(20_000_001), mtime=0), 413, "larger"),
        ("gzip", gzip.compress(bytes(27_000_054), mtime=0), 413, "larger"),  # a black BMP
        ("gzip", gzip.compress(b"abc", mtime=0)[:-4], 400, "gzip"),
        ("gzip", gzip.compress(b"abc", mtime=0) + b"more", 400, "gzip"),
        ("gzip", b"plain", 400, "gzip"),
        ("br", b"abc", 415, "'br'"),
        ("gzip, gzip", b"abc", 415, "'gzip, gzip'"),
    ],
    ids=["too-large", "larger", "cut", "more", "plain", "br", "twice"],
)
def test_a_body_that_cannot_be_unpacked_is_refused_by_name(server, encoding, body, status, word):
    answer = server.post("/v1/predict", body, headers={"Content-Encoding": encoding})
    assert answer.status_code == status
    assert word in reason(answer)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; charset=undefined; boundary=x", "multipart/form-data; boundary=",
             "multipart/form-data; charset=nothing; boundary=x", "multipart/form-data"],
)  # fmt: skip
def test_a_form_that_cannot_be_read_is_the_senders_fault(server, kind):
    body = b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nabc\r\n--x--\r\n'
    answer = server.post("/v1/predict", body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "form" in reason(answer)


def test_no_module_is_taken_from_a_cache_unasked(server):
    """After an upgrade a browser asks for each; what is the same is not sent again."""
    for path in ("/", "/static/main.js", "/static/style.css", "/v1/model"):
        assert server.get(path).headers["cache-control"] == "no-cache"
    tag = server.get("/static/main.js").headers["etag"]
    again = server.get("/static/main.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_request_keeps_the_id_that_a_proxy_gave_it(server):
    given = server.get("/v1/nothing", headers={"X-Request-ID": "of-a-proxy.1"})
    assert given.headers["x-request-id"] == given.json()["error"]["request_id"] == "of-a-proxy.1"
    odd = server.get("/v1/nothing", headers={"X-Request-ID": "a\tb" * 99})
    assert len(odd.headers["x-request-id"]) == 16
    ids = {server.get("/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_tokens_are_trimmed_and_an_empty_one_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "tokens"
    file.write_text("first \n\n second\n")
    assert _read_tokens(None, file) == ("first", "second")
    assert _read_tokens("own\n", file) == ("own", "first", "second")
    monkeypatch.setenv("ALEXNET_TOKEN", "held\n")
    assert _read_tokens(None, None) == ("held",)
    for empty in ("", " \n"):
        with pytest.raises(ConfigError, match="A token is empty"):
            ServerSettings(tokens=_read_tokens(empty, None))  # though the environment has one
    monkeypatch.setenv("ALEXNET_TOKEN", "")
    with pytest.raises(ConfigError, match="A token is empty"):
        ServerSettings(tokens=_read_tokens(None, None))
    file.write_text("\n")
    with pytest.raises(ConfigError, match="no token"):
        _read_tokens(None, file)
    with pytest.raises(ConfigError, match="cannot be read"):
        _read_tokens(None, tmp_path / "nothing")
    monkeypatch.delenv("ALEXNET_TOKEN")
    assert _read_tokens(None, None) == ()


def test_each_request_is_a_line_of_the_log_and_any_token_of_a_file_is_taken(
    serving, trained, tmp_path, photograph
):
    (tmp_path / "tokens").write_text("first\nsécond\n", encoding="utf-8")
    served = serving(trained, "--log-json", "--token-file", str(tmp_path / "tokens"))
    statuses = []
    for token in ("Bearer first", "bearer sécond", "Bearer third", "first"):
        headers = {"Authorization": token.encode(), "X-Request-ID": f"n{len(statuses)}"}
        statuses.append(served.post("/v1/predict?top=1", photograph, headers=headers).status_code)
    assert statuses == [200, 200, 401, 401]
    assert served.stop() == 143
    lines = [json.loads(line) for line in served.process.stdout]
    lines = [line for line in lines if line["request_id"].startswith("n")]
    assert [line["status"] for line in lines] == statuses
    assert lines[0].items() > {
        "method": "POST", "path": "/v1/predict", "route": "/v1/predict", "client": "127.0.0.1",
        "bytes_in": len(photograph), "request_id": "n0",
    }.items()  # fmt: skip
    assert lines[0]["bytes_out"] > 100
    assert 0 < lines[0]["seconds"] < 30


def test_no_answer_tells_a_path_of_the_server(serving, copied_run, capfd):
    """Training images that moved: the folder stands in the log, not in the answer."""
    config = copied_run / "config.json"
    config.write_text(config.read_text().replace(Run.open(copied_run).config.data, "/gone/away"))
    served = serving(copied_run)
    for path in ("/v1/exciting?layer=conv1&unit=0", "/v1/example"):
        answer = served.get(path)
        assert answer.status_code == 404
        assert "/gone" not in answer.text
    assert "/gone/away" in capfd.readouterr().err
    for path in ("/v1/model", "/docs", "/openapi.json", "/metrics", "/v1/run"):
        text = served.get(path).text
        assert str(copied_run.parent) not in text
        assert "site-packages" not in text


def test_readiness_needs_the_runs_folder(serving, copied_run):
    served = serving(copied_run)
    assert served.get("/readyz").status_code == 200
    (copied_run / "config.json").rename(copied_run / "away.json")
    answer = served.get("/readyz")
    assert answer.status_code == 503
    assert "folder" in reason(answer)
    assert int(answer.headers["retry-after"]) > 0
    assert served.get("/healthz").status_code == 200
    (copied_run / "away.json").rename(copied_run / "config.json")
    assert served.get("/readyz").status_code == 200


def write_metrics(run: Path) -> None:
    line = {
        "epoch": 1.5,
        "loss": 0.693147,
        "train_top1": 0.51,
        "lr": 0.01,
        "images_per_second": 1e3,
    }
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(LINES):
            file.write(json.dumps({"step": step, **line}) + "\n")


def test_reads_of_a_long_run_do_not_delay_a_prediction(serving, copied_run, photograph):
    """60 at once of 90,000 lines, over and over: each was read and parsed anew, for 30 s in all."""
    write_metrics(copied_run)
    served = serving(copied_run)
    served.is_quick(photograph)
    alone = sorted(served.is_quick(photograph) for _ in range(5))[2]
    read: list[int] = []

    async def reads(stop: threading.Event) -> None:
        async def one(client) -> None:
            while not stop.is_set():
                answer = await client.get("/v1/run")
                read.append(answer.status_code)

        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            await asyncio.gather(*(one(client) for _ in range(60)))

    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(reads(stop)))
    thread.start()
    waited = [served.is_quick(photograph) for _ in range(10)]
    stop.set()
    thread.join()
    assert set(read) <= {200, 503}
    assert read.count(200) > 20
    assert sorted(waited)[5] < alone + 1  # 0.2 s on a machine that does nothing else


def test_who_never_reads_holds_little_and_keeps_nobody_out(serving, copied_run, photograph):
    """60 clients that ask for a long run's curves, half a megabyte each, and do not read them."""
    write_metrics(copied_run)
    served = serving(copied_run)
    served.get("/v1/run")
    served.is_quick(photograph)
    before = served.resident()
    with ExitStack() as lines:
        for _ in range(60):
            line = socket.socket()
            lines.enter_context(line)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", served.port))
            line.sendall(b"GET /v1/run HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        assert served.get("/v1/run").status_code == 200
        served.is_quick(photograph)
        held = served.get("/metrics").text.split("\nalexnet_answer_bytes ")[1].splitlines()[0]
        assert float(held) > 0
        assert served.resident() - before < 30e6


def test_a_newer_checkpoint_is_served_without_a_failed_request(serving, copied_run, photograph):
    run = Run.open(copied_run)
    old = run.load_weights()
    served = serving(copied_run, "--follow")
    before = served.post("/v1/predict", photograph).json()["predictions"]
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=30) as client:
            while not stop.is_set():
                statuses.append(client.post("/v1/predict", content=photograph).status_code)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    broken = shutil.copytree(
        run.checkpoints / f"step-{old.step:08}", run.checkpoints / f"step-{old.step + 1:08}"
    )
    (broken / WEIGHTS).write_bytes(b"half")
    time.sleep(3)
    assert served.get("/v1/model").json()["step"] == old.step
    weights = {name: torch.zeros_like(value) for name, value in old.weights.items()}
    save_checkpoint(run.checkpoints, Checkpoint(old.step + 2, weights), keep=3)
    until = time.monotonic() + 30
    while served.get("/v1/model").json()["step"] == old.step and time.monotonic() < until:
        time.sleep(0.1)
    after = served.post("/v1/predict", photograph).json()["predictions"]
    stop.set()
    for thread in asking:
        thread.join()
    assert served.get("/v1/model").json()["step"] == old.step + 2
    assert {row["probability"] for row in after[0]} == {0.5}
    assert before != after
    assert set(statuses) == {200}
    assert len(statuses) > 10


def test_sigterm_ends_a_server_that_prepares_data(serving, trained, photographs, tmp_path):
    """A preparation of 6,000 images takes longer than the five seconds for draining."""
    originals = sorted(photographs.rglob("train/*/*.png"))
    for number in range(6_000):
        original = originals[number % len(originals)]
        folder = tmp_path / "images" / "train" / original.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        os.link(original, folder / f"{number}.png")
    served: Served = serving(trained, "--data", str(tmp_path / "images"), "--drain-seconds", "5")
    time.sleep(1)
    assert "alexnet_looking 1.0" in served.get("/metrics").text
    start = time.monotonic()
    assert served.stop() == 143
    assert time.monotonic() - start < 5


def test_sigterm_under_load_answers_every_request_that_was_taken(serving, trained, photograph):
    """Clients on kept connections: after the last answer a connection is closed, never before."""
    served = serving(trained, "--drain-seconds", "10")
    statuses: list[int] = []
    lost: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=30) as client:
            while True:
                try:
                    statuses.append(client.post("/v1/predict", content=photograph).status_code)
                except httpx.ConnectError:  # nobody listens any more
                    return
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    until = time.monotonic() + 30
    while len(statuses) < 16 and time.monotonic() < until:
        time.sleep(0.01)
    assert served.stop() == 143
    for thread in asking:
        thread.join()
    assert lost == []
    assert set(statuses) == {200}
