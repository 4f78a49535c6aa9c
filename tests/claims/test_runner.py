"""The command as users run it: the whole grid in miniature, and real kills in the middle of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet.claims.results import read

KILLS = int(os.environ.get("ALEXNET_KILLS", "3"))
FEW = ("overlap", "towers", "lrn-alpha")  # seven runs of a second each with two seeds
CLAIMS = (sys.executable, "-m", "alexnet", "claims")


def asked(photographs, out, *more):
    words = (*CLAIMS, *more, "--data", photographs, "--out", out, "--seeds", 2, "--workers", 2)
    return [*map(str, words)]


def table(out):
    """Return what the runs gave, without how long they took."""
    return {
        run.key: (run.seed, run.measures, run.capped, run.curve)
        for run in read(out / "results.jsonl")
    }


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory, environment):
    out = tmp_path_factory.mktemp("claims") / "undisturbed"
    done = subprocess.run(
        asked(photographs, out, *FEW), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def workers(process):
    """Return the processes that make the runs, but for Python's own helper."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = []
    for pid in children.read_text().split() if children.exists() else ():
        try:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found


def until(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def steps(out):
    """Return how many lines all runs have logged."""
    return sum(len(log.read_bytes().splitlines()) for log in out.glob("runs/*/metrics.jsonl"))


def test_killed_workers_and_commands_leave_the_table_of_an_undisturbed_one(
    photographs, undisturbed, tmp_path, environment
):
    """SIGKILL of a worker, which the command survives, and of the command, run again after."""
    out, draws, killed = tmp_path / "out", random.Random(0), {"worker": 0, "command": 0}
    while killed["command"] < KILLS:
        process = subprocess.Popen(
            asked(photographs, out, *FEW), env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        before = steps(out)
        until(lambda before=before: steps(out) > before + draws.randrange(5), process)
        if victims := workers(process):
            os.kill(draws.choice(victims), signal.SIGKILL)
            killed["worker"] += 1
            before = steps(out)
            until(lambda before=before: steps(out) > before + draws.randrange(5), process)
        process.send_signal(signal.SIGKILL)
        killed["command"] += process.wait() == -signal.SIGKILL
        process.stderr.close()
        if process.returncode == 0:
            break
    done = subprocess.run(
        asked(photographs, out, *FEW), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert killed["worker"] > 0
    assert killed["command"] > 0
    assert table(out) == table(undisturbed)
    assert verdicts(out) == verdicts(undisturbed)


def verdicts(out):
    return (out / "report.md").read_text().split("## ")[1:3]


def test_asked_to_stop_it_saves_and_the_same_command_goes_on(
    photographs, undisturbed, tmp_path, environment
):
    """SIGINT to the command alone: its workers are told, and nothing is left running."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        asked(photographs, out, *FEW), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: steps(out) > 3, process)
    making = workers(process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert making
    assert not any(alive(pid) for pid in making)
    done = subprocess.run(asked(photographs, out, *FEW), env=environment, capture_output=True)
    assert done.returncode == 0
    assert table(out) == table(undisturbed)


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_runs_that_are_there_are_not_made_again(photographs, undisturbed, environment):
    """Another claim that shares an arm costs its other arm alone."""
    before = (undisturbed / "results.jsonl").read_bytes()
    done = subprocess.run(
        asked(photographs, undisturbed, "overlap", "--json"),
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (undisturbed / "results.jsonl").read_bytes() == before
    (claim,) = json.loads(done.stdout)["claims"]
    assert (claim["name"], claim["seeds"]) == ("overlap", 2)


def test_two_commands_do_not_share_a_folder(photographs, tmp_path, environment):
    out = tmp_path / "out"
    first = subprocess.Popen(
        asked(photographs, out, *FEW), env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: steps(out) > 0, first)
    second = subprocess.run(
        asked(photographs, out, "overlap"), env=environment, capture_output=True, text=True
    )
    first.send_signal(signal.SIGINT)
    first.wait(60)
    assert second.returncode == 1
    assert "Another command runs claims in" in second.stderr


def test_the_whole_grid_in_miniature(photographs, tmp_path, environment):
    """Every claim of the paper, trained on 36 photographs."""
    out = tmp_path / "out"
    done = subprocess.run(
        asked(photographs, out, "--json"), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(claim["seeds"] == 2 for claim in found["claims"])
    assert {claim["verdict"] for claim in found["claims"]} <= {
        "holds", "holds in direction only", "not seen at this scale", "reversed",
    }  # fmt: skip
    assert {check["name"] for check in found["checks"]} == {"counts", "dropout-identity"}
    names = {claim["name"] for claim in found["claims"]}
    page = (out / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in names)
    for run in read(out / "results.jsonl"):
        assert run.curve or run.failed
        assert run.commit or run.versions
    relu = next(claim for claim in found["claims"] if claim["name"] == "relu")
    assert relu["ratio"]


def test_a_budget_chooses_seeds_and_epochs_once(photographs, tmp_path, environment):
    words = [*CLAIMS, "overlap", "--data", str(photographs), "--out", str(tmp_path / "out")]
    plans = []
    for _ in range(2):
        done = subprocess.run(
            [*words, "--budget", "20s", "--json"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        plans.append((tmp_path / "out" / "plans.json").read_bytes())
    assert plans[0] == plans[1]
    (chosen,) = json.loads(plans[0]).values()
    (claim,) = json.loads(done.stdout)["claims"]
    assert claim["seeds"] == chosen[0] >= 2
    refused = subprocess.run(
        [*words, "--budget", "0.01s"], env=environment, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "too short for these claims" in refused.stderr
