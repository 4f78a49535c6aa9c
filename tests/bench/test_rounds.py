"""Contenders run in processes of their own, in turn, and what goes wrong there is told here."""

import contextlib
import itertools
import os
import time
from functools import partial

import pytest

from alexnet.bench import rounds
from alexnet.bench.contender import Contender, Timed
from alexnet.bench.rounds import Child, heat
from alexnet.errors import AlexNetError, ConfigError, MissingExtraError
from tests.bench.networks import setting


def sleeper(seconds, at):
    def call():
        with (at.scratch / "calls").open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")
        time.sleep(seconds)
        with (at.scratch / "calls").open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")

    return Timed(call, 2, "sleeps")


def absent(at):
    raise MissingExtraError("openvino", "bench", "This comparison")


def refusing(at):
    raise ConfigError("It cannot be.", "Do otherwise.")


def dying(at):
    return Timed(partial(os._exit, 3), 1)


def test_rounds_are_in_turn_and_one_runs_at_a_time(tmp_path):
    at = setting(tmp_path)
    with contextlib.closing(Child([Contender("limit", partial(sleeper, 0.2))], at)) as always:
        groups = [[Contender("slow", partial(sleeper, 0.3))], [Contender("none", absent)]]
        found = heat(groups, at, always, 2)
    assert found.times.keys() == {"limit", "slow"}
    assert all(len(times) == 2 for times in found.times.values())
    assert min(found.times["slow"]) >= 0.3
    assert found.rates("slow")[0] == pytest.approx(2 / found.times["slow"][0])
    assert found.ready.notes == {"limit": "sleeps", "slow": "sleeps"}
    assert "pip install 'alexnet[bench]'" in found.ready.missing["none"]
    assert found.always == ("limit",)

    lines = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    assert all(begin[0] == end[0] for begin, end in pairs)  # nobody else spoke in between
    turns = [begin[0] for begin, _ in pairs]
    changes = sum(one != next_ for one, next_ in itertools.pairwise(turns))
    assert changes == 2 * 3 - 1  # two processes, three rounds


@pytest.mark.parametrize(
    ("make", "told"),
    [(refusing, "It cannot be. Do otherwise."), (dying, r"runs x has ended \(exit status 3\)")],
)
def test_a_process_that_cannot_go_on_is_one_sentence(tmp_path, make, told):
    with pytest.raises(AlexNetError, match=told):  # noqa: SIM117 -- from either
        with contextlib.closing(Child([Contender("x", make)], setting(tmp_path))) as child:
            child.round()


def test_a_round_has_calls_enough_and_leaves_the_first_out(monkeypatch):
    monkeypatch.setattr(rounds, "ENOUGH", 0.05)
    naps = iter([0.3, *[0.02] * 100])
    took = rounds.round_seconds(Timed(lambda: time.sleep(next(naps)), 1), setting(None).device)
    assert 0.02 <= took < 0.1
