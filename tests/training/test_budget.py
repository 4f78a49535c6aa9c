"""A training with a budget lays its schedule into the steps that fit, and keeps to what is left."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest

from alexnet.errors import ConfigError
from alexnet.training import budget
from alexnet.training.budget import Budget, Plan
from alexnet.training.fit import Execution
from tests.conftest import QUICK


def test_a_plan_that_is_never_laid_again_is_the_fraction_of_steps_taken():
    plan = Plan(492)
    assert [plan.progress_at(step) for step in (1, 2, 492)] == [0, 1 / 492, 491 / 492]


def test_a_plan_goes_on_from_where_it_was_and_ends_with_the_schedule():
    plan = Plan(1000).with_total(300, done=100)
    assert plan.progress_at(101) == pytest.approx(0.1)
    assert plan.progress_at(201) == pytest.approx(0.55)
    assert plan.progress_at(301) == pytest.approx(1)
    longer = plan.with_total(500, done=200)
    assert longer.progress_at(201) == pytest.approx(0.55)
    assert longer.progress_at(501) == pytest.approx(1)
    assert plan.with_total(200, done=200).progress_at(201) == pytest.approx(0.55)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget.time, "monotonic", clock)
    return clock


def test_what_fits_is_counted_without_the_step_that_compiles(clock):
    left = Budget(seconds=1000, begun=clock.now, spent=200, reserved=80)
    clock.now += 60  # compiling
    assert not left.is_due(1)
    for taken in range(2, 12):
        clock.now += 2
        assert left.is_due(taken) == (taken == 11)
    assert left.count_steps_left(11) == (980 - 80 - 200 - 80) // 2
    assert left.seconds_a_step() == 2
    said = left.describe(Plan(321), images_a_step=64, steps_an_epoch=33, epochs=36)
    assert said == (
        "This machine trains 32 images a second; 36 epochs would take 40 minutes; 9.7 fit into "
        "17 minutes, the test included."
    )


def test_a_machine_that_slows_down_gets_a_shorter_plan_and_it_is_said_once(clock):
    left = Budget(seconds=1000, begun=clock.now)
    plan, said = Plan(10_000), []
    for taken in range(1, 2000):
        clock.now += 1 if taken < 100 else 4
        if left.is_due(taken):
            plan = plan.with_total(taken + left.count_steps_left(taken), taken)
            said += filter(None, [left.describe(plan, 64, 33, 36)])
        if taken >= plan.total:
            break
    assert 0.95 * 1000 < left.now_spent() < 1000
    assert len(said) < 8
    assert said[-1].endswith("epochs fit.")


def test_a_budget_that_is_spent_has_no_step_left(clock):
    left = Budget(seconds=100, begun=clock.now, spent=99)
    for taken in range(1, 13):
        clock.now += 1
        left.is_due(taken)
    assert left.count_steps_left(12) == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_no_time_is_no_budget(seconds):
    with pytest.raises(ConfigError):
        Execution(budget=seconds)


def train(photographs, run, *more):
    """A training of more epochs than any machine gets through in the time."""
    arguments = ("train", photographs, "--out", run, *QUICK, "--epochs", 100_000, *more)
    return [sys.executable, "-m", "alexnet", *map(str, arguments)]


def newest_state(run):
    (*_, newest) = sorted((run / "checkpoints").glob("step-*"))
    return json.loads((newest / "state.json").read_text(encoding="utf-8"))


def follows_its_schedule(run):
    """Whether the rate rose to its highest and fell again, of which 100,000 epochs see nothing."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    rates = [line["lr"] for line in lines if "lr" in line]
    return max(rates) > 0.9e-3 and rates[-1] < 0.3e-3


def test_a_run_ends_with_its_schedule_and_its_test(photographs, tmp_path, environment):
    run = tmp_path / "run"
    command = train(photographs, run, "--budget", "15s")
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "This machine trains" in done.stdout
    assert (run / "test.json").is_file()
    assert follows_its_schedule(run)
    state = newest_state(run)
    assert state["spent"] > 1
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert newest_state(run) == state
    assert "top-1" in again.stdout


def test_a_run_that_was_stopped_has_what_is_left_of_its_budget(photographs, tmp_path, environment):
    run = tmp_path / "run"
    command = train(photographs, run, "--budget", "25s", "--set", "log_every=1")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    metrics, begun = run / "metrics.jsonl", math.inf
    while process.poll() is None:
        if metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 20:
            begun = min(begun, time.monotonic())
        if time.monotonic() > begun + 1:  # a fast machine has twenty steps sooner
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    spent = newest_state(run)["spent"]
    assert spent > 1
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert newest_state(run)["spent"] > spent
    assert follows_its_schedule(run)
