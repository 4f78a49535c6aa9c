"""The queue before the network: who is run with whom, who is refused, and in how many threads."""

import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor

from alexnet.serve.admission import Admission, HTTPError, ServerSettings
from alexnet.serve.engine import Engine


class Waiting:
    """A work that does nothing until it is let go, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.begun, self.going = threading.Event(), threading.Event()

    def __call__(self, images: Tensor) -> list[float]:
        self.begun.set()
        assert self.going.wait(30)
        self.batches.append(images.tolist())
        return [2 * value for value in images.tolist()]


def images(*values: float) -> list[Tensor]:
    return [torch.tensor(value) for value in values]


@pytest.fixture
def engine():
    engine = Engine(Admission(ServerSettings(batch_size=4, max_waiting=6)))
    yield engine
    engine.close()


def test_jobs_that_wait_are_run_together_by_work_and_in_order(engine):
    first, other = Waiting(), Waiting()
    other.going.set()
    (running,) = engine.submit(first, images(0.0))
    first.begun.wait(30)  # what comes now waits
    mine = engine.submit(first, images(1.0, 2.0))
    others = engine.submit(other, images(9.0))
    mine += engine.submit(first, images(3.0, 4.0, 5.0))
    first.going.set()
    assert [future.result(30) for future in (running, *mine)] == [0, 2, 4, 6, 8, 10]
    assert others[0].result(30) == 18
    assert first.batches == [[0.0], [1.0, 2.0, 3.0, 4.0], [5.0]]


def test_what_has_no_room_is_refused_whole_and_what_waits_is_answered(engine):
    work = Waiting()
    engine.submit(work, images(0.0))
    work.begun.wait(30)
    waiting = engine.submit(work, images(1.0, 2.0, 3.0, 4.0))
    with pytest.raises(HTTPError, match="waiting") as caught:
        engine.submit(work, images(5.0, 6.0, 7.0))
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
    waiting += engine.submit(work, images(5.0, 6.0))
    work.going.set()
    assert [future.result(30) for future in waiting] == [2, 4, 6, 8, 10, 12]


def test_ten_views_cost_as_much_as_ten_images(engine):
    """Of four places in a batch and six in the queue; an empty queue takes any request."""
    work = Waiting()
    engine.submit(work, images(0.0))
    work.begun.wait(30)
    dear = engine.submit(work, images(1.0, 2.0, 3.0), cost=3)  # 9
    with pytest.raises(HTTPError):
        engine.submit(work, images(4.0))
    assert engine.admission.forwards == 9
    work.going.set()
    assert [future.result(30) for future in dear] == [2, 4, 6]
    assert work.batches == [[0.0], [1.0], [2.0], [3.0]]
    assert engine.admission.forwards == 0


def test_a_job_that_nobody_waits_for_any_more_is_not_run(engine):
    work = Waiting()
    engine.submit(work, images(0.0))
    work.begun.wait(30)
    given_up, kept = engine.submit(work, images(1.0, 2.0))
    given_up.cancel()
    work.going.set()
    assert kept.result(30) == 4
    assert work.batches == [[0.0], [2.0]]


def test_a_work_that_fails_fails_its_own_jobs_alone(engine):
    def broken(images: Tensor) -> list[float]:
        raise RuntimeError("no memory")

    (failed,) = engine.submit(broken, images(1.0))
    with pytest.raises(RuntimeError, match="no memory"):
        failed.result(30)
    work = Waiting()
    work.going.set()
    assert engine.submit(work, images(1.0))[0].result(30) == 2


def test_closing_finishes_what_waits(engine):
    work = Waiting()
    futures = engine.submit(work, images(0.0, 1.0))
    work.going.set()
    engine.close()
    assert [future.result(0) for future in futures] == [0, 2]
    with pytest.raises(HTTPError):
        engine.submit(work, images(1.0))


COUNTED = """
import os, torch
from alexnet.serve.admission import Admission, ServerSettings
from alexnet.serve.engine import Engine
torch.set_num_threads(1)
engine = Engine(Admission(ServerSettings(batch_size=1, max_waiting=1)))
layer = torch.nn.Conv2d(3, 96, 11, stride=4).bfloat16()
before = len(os.listdir("/proc/self/task"))
work = lambda images: layer(images).detach()
engine.submit(work, [torch.randn(3, 227, 227).bfloat16()])[0].result()
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_the_number_of_threads_holds_in_the_threads_of_the_engine(environment):
    """OpenMP would start more in a thread that has not been told."""
    free = {name: value for name, value in environment.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], env=free, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"
