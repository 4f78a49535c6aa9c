"""Cases run in processes of their own, in turn, and what goes wrong there is told here."""

import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from alexnet.bench import cases
from alexnet.bench.cases import Case, CaseProcess, TimedCall, run_rounds
from alexnet.errors import AlexNetError, ConfigError, MissingExtraError
from tests.bench.networks import settings

pytestmark = pytest.mark.slow  # every case is a process of its own
ROOT = Path(__file__).parents[2]


def sleeper(seconds, at):
    def call():
        with (at.scratch / "calls").open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")
        time.sleep(seconds)
        with (at.scratch / "calls").open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")

    return TimedCall(call, 2, "sleeps")


def one_long_call(at):
    """Hold a lock for as long as the process lives, and compute for minutes in a single call."""
    lock = (at.scratch / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    x = torch.ones(8192, 4096)

    def call():
        lock.write("calling")
        lock.flush()
        torch.cdist(x, x, p=1.7)

    return TimedCall(call, 1)


def run_one_long_call(scratch):
    """Run it as the command does; the parent of this module's test kills this process."""
    CaseProcess([Case("long", one_long_call)], settings(scratch)).run_round()


def absent(at):
    raise MissingExtraError("openvino", "bench", "This comparison")


def refusing(at):
    raise ConfigError("It cannot be.", "Do otherwise.")


def dying(at):
    return TimedCall(partial(os._exit, 3), 1)


def test_rounds_are_in_turn_and_one_runs_at_a_time(tmp_path):
    at = settings(tmp_path)
    with contextlib.closing(CaseProcess([Case("limit", partial(sleeper, 0.2))], at)) as always:
        groups = [[Case("slow", partial(sleeper, 0.3))], [Case("none", absent)]]
        found = run_rounds(groups, at, always, 2)
    assert found.times.keys() == {"limit", "slow"}
    assert all(len(times) == 2 for times in found.times.values())
    assert min(found.times["slow"]) >= 0.3
    assert found.rates("slow")[0] == pytest.approx(2 / found.times["slow"][0])
    assert found.notes == {"limit": "sleeps", "slow": "sleeps"}
    assert "pip install 'alexnet[bench]'" in found.missing["none"]
    assert always.made.amounts.keys() == {"limit"}

    lines = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    assert all(begin[0] == end[0] for begin, end in pairs)  # nobody else spoke in between
    turns = [begin[0] for begin, _ in pairs]
    changes = sum(one != next_ for one, next_ in itertools.pairwise(turns))
    assert changes == 2 * 3 - 1  # two processes, three rounds


def test_past_its_deadline_one_round_is_measured(tmp_path):
    at = settings(tmp_path)
    with contextlib.closing(CaseProcess([Case("limit", partial(sleeper, 0.01))], at)) as always:
        found = run_rounds([], at, always, 5, deadline=time.monotonic())
    assert len(found.times["limit"]) == 1
    assert not found.interrupted


@pytest.mark.parametrize("whole_rounds", [1, 2])
def test_whole_rounds_before_an_interruption_are_kept(tmp_path, whole_rounds):
    at = settings(tmp_path)
    lines_a_round = 4  # of the slow case: two calls, the first of them not counted

    def interrupt(limit):
        calls, wanted = tmp_path / "calls", (1 + whole_rounds) * lines_a_round + 1
        while not calls.exists() or wanted > sum(
            not line.startswith(f"{limit} ") for line in calls.read_text().splitlines()
        ):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    groups = [[Case("slow", partial(sleeper, 0.6))]]
    with contextlib.closing(CaseProcess([Case("limit", partial(sleeper, 0.2))], at)) as always:
        limit = always._process.pid
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist ignores it
        try:
            threading.Thread(target=interrupt, args=(limit,), daemon=True).start()
            found = run_rounds(groups, at, always, 50)
        finally:
            signal.signal(signal.SIGINT, before)
    assert found.interrupted
    assert len(found.times["slow"]) == len(found.times["limit"]) == whole_rounds


@pytest.mark.parametrize(
    ("make", "told"),
    [(refusing, "It cannot be. Do otherwise."), (dying, r"runs x has ended \(exit status 3\)")],
)
def test_a_process_that_cannot_go_on_is_one_sentence(tmp_path, make, told):
    with pytest.raises(AlexNetError, match=told):  # noqa: SIM117 -- from either
        with contextlib.closing(CaseProcess([Case("x", make)], settings(tmp_path))) as process:
            process.run_round()


def test_a_process_ends_within_seconds_of_its_killed_parent_even_in_a_long_call(tmp_path):
    lock = tmp_path / "lock"
    script = f"""
from pathlib import Path
from tests.bench.test_rounds import run_one_long_call
if __name__ == "__main__":
    run_one_long_call(Path({str(tmp_path)!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        deadline = time.monotonic() + 180
        while not lock.exists() or not lock.read_text():
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)  # it is in the call now
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    with lock.open() as file:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_round_has_calls_enough_and_leaves_the_first_out(monkeypatch):
    monkeypatch.setattr(cases, "ROUND_SECONDS", 0.05)
    naps = iter([0.3, *[0.02] * 100])
    took = cases.time_round(TimedCall(lambda: time.sleep(next(naps)), 1), settings(None).device)
    assert 0.02 <= took < 0.1
