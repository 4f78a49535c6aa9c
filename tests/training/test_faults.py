"""What real machines do to a training: kills, hangs, signals, full disks, little memory.

Real processes and real kills. The long form, some ten minutes:

    ALEXNET_KILLS=200 ALEXNET_RANK_KILLS=20 pytest tests/training/test_faults.py --timeout 3000 -rP
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alexnet.data.loader import Part
from alexnet.files import sha256
from alexnet.training.randomness import Order
from tests.conftest import QUICK
from tests.processes import alive, until, workers

pytestmark = pytest.mark.long  # trainings of several processes, killed and begun again
KILLS = int(os.environ.get("ALEXNET_KILLS", "20"))
RANK_KILLS = int(os.environ.get("ALEXNET_RANK_KILLS", "2"))
EVERY = 5  # steps between checkpoints


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("val_top1"))) for line in lines]


def logged(run):
    """Return the last step of the metrics; 0 while there are none."""
    try:
        return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def newest(run):
    folders = sorted((run / "checkpoints").glob("step-*"))
    return int(folders[-1].name.removeprefix("step-")) if folders else 0


def weights(run):
    return sha256(run / "checkpoints" / f"step-{newest(run):08}" / "weights.safetensors")


def command(photographs, run, steps, *more, launch=()):
    words = ["train", photographs, "--out", run, *QUICK, "--max-steps", steps]
    words += ["--epochs", 50_000, "--checkpoint-every", EVERY, *more]
    return [sys.executable, "-m", "alexnet", *map(str, (*launch, *words))]


def finished(asked, environment, **more):
    return subprocess.run(
        asked, env=environment, capture_output=True, text=True, timeout=600, **more
    )


def begun(asked, environment):
    return subprocess.Popen(
        asked, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_after_kills_at_random_moments_it_is_the_undisturbed_training(
    photographs, tmp_path, environment
):
    """Scenario 1: at any time from its start on, in the middle of writing a checkpoint too."""
    draws, steps = random.Random(0), 40 * KILLS
    finished(command(photographs, tmp_path / "whole", steps), environment, check=True)
    run, killed, half_written = tmp_path / "run", 0, 0
    while killed < KILLS:
        process = begun(command(photographs, run, steps), environment)
        before = newest(run)
        if draws.random() < 0.7:  # else while it starts
            until(lambda before=before: newest(run) > before, process)
        time.sleep(draws.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        half_written += bool(list((run / "checkpoints").glob(".step-*.part")))
        assert newest(run) >= logged(run) - 2 * EVERY  # one is written while the next is due
        if newest(run) == steps:
            break
    done = finished(command(photographs, run, steps), environment)
    assert done.returncode == 0, done.stderr
    print(f"{killed} kills, {half_written} with a half-written checkpoint")
    assert killed > KILLS * 0.6
    assert losses(run) == losses(tmp_path / "whole")
    assert weights(run) == weights(tmp_path / "whole")
    assert not list((run / "checkpoints").glob(".*.part"))


@pytest.fixture(scope="module")
def of_two(photographs, tmp_path_factory, environment):
    """Return an undisturbed training of two processes, and its flags."""
    run = tmp_path_factory.mktemp("of_two") / "run"
    asked = command(photographs, run, 300, launch=("launch", "--processes", 2))
    done = finished(asked, environment)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("number", range(RANK_KILLS))
def test_a_killed_rank_is_replaced_and_the_training_ends_the_same(
    photographs, of_two, tmp_path, environment, number
):
    """Scenario 4, and trap 3 of restarts: bit for bit. Ten seconds are for a machine at rest."""
    draws, run = random.Random(number), tmp_path / "run"
    asked = command(photographs, run, 300, launch=("launch", "--processes", 2))
    launcher = begun(asked, environment)
    at = draws.randrange(10, 200)
    assert until(lambda: logged(run) >= at, launcher)
    os.kill(draws.choice(workers(launcher)), signal.SIGKILL)
    killed, reached = time.monotonic(), logged(run)
    assert until(lambda: logged(run) > reached + 1, launcher) or launcher.poll() == 0
    took = time.monotonic() - killed
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, output
    print(f"{took:.1f} s after the kill it went on")
    assert losses(run) == losses(of_two)
    assert weights(run) == weights(of_two)


@pytest.mark.usefixtures("of_two")  # whose kernels are compiled: that alone can take 3 s
def test_a_hanging_rank_is_named_and_nobody_is_left(photographs, tmp_path, environment):
    """Scenario 6: stopped, not dead. 3 s without progress, and at most 10 s more."""
    run = tmp_path / "run"
    launch = ("launch", "--processes", 2, "--restarts", 0)
    asked = command(photographs, run, 100_000, "--timeout", "3s", launch=launch)
    launcher = begun(asked, environment)
    assert until(lambda: logged(run) >= 20, launcher)
    ranks = workers(launcher)
    os.kill(ranks[1], signal.SIGSTOP)
    stopped = time.monotonic()
    output, _ = launcher.communicate(timeout=60)
    assert time.monotonic() - stopped < 3 + 10
    assert launcher.returncode == 1
    assert f"rank 1 (process {ranks[1]} on" in output
    assert "Thread" in (run / "stacks" / "rank-0.txt").read_text()
    assert not any(map(alive, ranks))


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]
)
def test_a_signal_to_any_rank_saves_and_stops_all(
    photographs, of_two, tmp_path, environment, sent, status
):
    run = tmp_path / "run"
    asked = command(photographs, run, 300, launch=("launch", "--processes", 2))
    launcher = begun(asked, environment)
    assert until(lambda: logged(run) >= 20, launcher)
    os.kill(workers(launcher)[1], sent)  # not the one that writes
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == status, output
    assert "Stopped and saved after step" in output
    assert newest(run) == logged(run)
    done = finished(asked, environment)
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(of_two)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_launcher_that_is_asked_to_end_does_when_all_have_saved(
    photographs, tmp_path, environment, sent, status
):
    """It reads no results any more, and would kill after 30 seconds those who wait for that."""
    run = tmp_path / "run"
    launch = ("launch", "--processes", 2)
    launcher = begun(command(photographs, run, 100_000, launch=launch), environment)
    assert until(lambda: logged(run) >= 20, launcher)
    launcher.send_signal(sent)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == status, output
    assert "Stopped and saved after step" in output
    assert "forcefully" not in output
    assert newest(run) == logged(run)


def test_usr1_and_the_end_of_its_time_ask_to_be_started_again(photographs, tmp_path, environment):
    run = tmp_path / "run"
    process = begun(command(photographs, run, 100_000), environment)
    assert until(lambda: logged(run) >= 12, process)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert newest(run) == logged(run)
    begin = time.monotonic()
    done = finished(command(photographs, run, 100_000, "--max-time", "2s"), environment)
    assert done.returncode == 75
    assert time.monotonic() - begin < 20
    assert "Stopped and saved after step" in done.stdout


def test_one_process_goes_on_with_what_two_began(photographs, of_two, tmp_path, environment):
    """Scenario 5: the same images a step, whichever process has them; float32 rounds otherwise."""
    run = tmp_path / "run"
    for steps, launch in ((100, ("launch", "--processes", 2)), (300, ())):
        done = finished(command(photographs, run, steps, launch=launch), environment)
        assert done.returncode == 0, done.stderr
    both = list(zip(losses(run), losses(of_two), strict=True))
    assert all(one[0] == other[0] for one, other in both)
    assert max(abs(one[1] - other[1]) for one, other in both[:120]) < 1e-3


@pytest.mark.parametrize("last_batch", ["run-on", "short"])
def test_every_image_of_an_epoch_comes_once_whatever_the_number_of_processes(last_batch):
    order = Order(103, 8, 0, last_batch)
    steps = 13  # the 13 batches of an epoch; with run-on the last one has a next epoch's image
    seen = [
        number
        for step in range(steps)
        for rank in range(2 if step < 6 else 3 if step < 9 else 1)
        for number in Part(rank, 2 if step < 6 else 3 if step < 9 else 1).of(order.indices(step))
    ]
    assert sorted(seen[:103]) == list(range(103)) or sorted(set(seen)) == list(range(103))
    assert np.array_equal(seen, np.concatenate([order.indices(step) for step in range(steps)]))


def test_a_run_is_trained_by_one_training_at_a_time(photographs, tmp_path, environment):
    run = tmp_path / "run"
    process = begun(command(photographs, run, 100_000), environment)
    assert until(lambda: logged(run) >= 5, process)
    second = finished(command(photographs, run, 100_000), environment)
    process.kill()
    process.communicate()
    assert second.returncode == 1
    assert "is being trained by another process" in second.stderr


def test_a_loss_that_is_no_number_stops_and_names_the_images(photographs, tmp_path, environment):
    """Scenario 11: within the step."""
    run = tmp_path / "run"
    done = finished(command(photographs, run, 50, "--set", "lr=1e6"), environment)
    assert done.returncode == 1
    assert "at step" in done.stderr
    assert "at a learning rate of" in done.stderr
    refused = next(run.glob("refused-*.json"))
    assert len(json.loads(refused.read_text())["images"]) == 12
    assert refused.name in done.stderr


def test_skipping_ends_after_ten_in_a_row(photographs, tmp_path, environment):
    asked = command(photographs, tmp_path / "run", 50, "--set", "lr=1e6", "--on-nan", "skip")
    done = finished(asked, environment)
    assert done.returncode == 1
    assert len(list((tmp_path / "run").glob("refused-*.json"))) == 10
    assert done.stdout.count("this batch is left out") == 9


@pytest.mark.parametrize("small_disk", [3000], indirect=True)
def test_a_full_disk_stops_the_training_with_what_was_saved(photographs, small_disk, environment):
    """Scenario 7: a checkpoint takes 1.2 MB here, so that the third no longer fits."""
    run = small_disk / "run"
    done = finished(command(photographs, run, 100), environment)
    assert done.returncode == 1
    assert "The disk is full" in done.stderr
    assert "MB are free" in done.stderr
    assert newest(run) > 0
    assert not list((run / "checkpoints").glob(".*.part"))


@pytest.mark.parametrize(
    "changed",
    [
        {"TZ": "Pacific/Chatham"}, {"HOME": None}, {"COLUMNS": "20"}, {"LANG": "C", "LC_ALL": "C"},
        {"PYTHONOPTIMIZE": "2"}, {"TERM": "dumb", "NO_COLOR": "1"},
    ],
    ids=lambda changed: "-".join(changed),
)  # fmt: skip
def test_it_trains_in_any_environment(photographs, tmp_path, environment, changed):
    """Scenario 21."""
    odd = {k: v for k, v in {**environment, **changed}.items() if v is not None}
    done = finished(command(photographs, tmp_path / "run", 6), odd)
    assert done.returncode == 0, done.stderr
    assert "ten views: top-1" in done.stdout


def test_it_keeps_no_time_by_a_clock_that_may_jump():
    """Scenario 21: what decides anything is measured by the monotonic clock."""
    sources = (Path(__file__).parents[2] / "src" / "alexnet" / "training").glob("*.py")
    assert not [path.name for path in sources if "time.time()" in path.read_text()]
