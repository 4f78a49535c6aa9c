"""Tasks over the processes of one machine, or on a cluster; the loss of a worker loses nothing."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from alexnet.errors import AlexNetError

ATTEMPTS = 3  # after which a task that its worker does not survive is set aside

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class LostWorkerError(AlexNetError):
    """A task whose worker died each time that it was tried."""


class _WorkerProcess(SpawnProcess):
    """A fresh process that does not run the user's script again, as spawned ones do.

    A script without `if __name__ == "__main__"` would begin its preparation anew in each worker.
    """

    @staticmethod
    def _Popen(process: Any) -> Any:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # of no file: nothing to run
        try:
            return SpawnProcess._Popen(process)
        finally:
            sys.modules["__main__"] = script


class _WorkerContext(SpawnContext):
    Process = _WorkerProcess


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes, which end when this one does, however it ends.

    They import what their work is made of, and nothing of the script that asked for them. Spawned,
    since a fork would copy the threads' locks.
    """
    return ProcessPoolExecutor(workers, mp_context=_WorkerContext(), initializer=_follow_parent)


def run_in_processes(
    work: Callable[[TaskT], ResultT],
    tasks: Iterable[TaskT],
    workers: int,
    rescue: Callable[[TaskT], ResultT],
    *,
    ahead: int = 2,
) -> Iterator[tuple[TaskT, ResultT]]:
    """Do tasks over processes; yield each with its result, as they finish.

    When a process dies, the pool is made anew and what was in work is done again. A task that
    was in work at `ATTEMPTS` deaths is given to `rescue`, in this process. So many tasks as `ahead`
    times the workers are handed over at once: 2 keeps workers busy with short tasks, 1 lets an
    interruption begin none.
    """
    left = iter(tasks)
    again: deque[TaskT] = deque()
    losses: Counter[int] = Counter()
    while True:
        in_work: dict[Future[ResultT], TaskT] = {}
        with process_pool(workers) as pool:
            try:
                for future in _run(pool, work, again, left, in_work, ahead * workers):
                    result = future.result()
                    yield in_work.pop(future), result
                return
            except BrokenProcessPool:
                pool.shutdown(wait=True, cancel_futures=True)
        for task in in_work.values():
            losses[id(task)] += 1
            if losses[id(task)] < ATTEMPTS:
                again.append(task)
            else:
                yield task, rescue(task)


def run_on_executor(
    executor: Executor, work: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], at_once: int
) -> Iterator[tuple[TaskT, ResultT]]:
    """Do tasks on any executor, such as a cluster's; yield each with its result.

    A task that fails by anything but an error of ours, as when its worker is lost, is tried
    `ATTEMPTS` times; a LostWorkerError says that this was not enough.
    """
    again: deque[TaskT] = deque()
    losses: Counter[int] = Counter()
    in_work: dict[Future[ResultT], TaskT] = {}
    for future in _run(executor, work, again, iter(tasks), in_work, at_once):
        task = in_work.pop(future)
        try:
            result = future.result()
        except AlexNetError:
            raise
        except Exception as error:
            losses[id(task)] += 1
            if losses[id(task)] == ATTEMPTS:
                raise LostWorkerError(
                    f"The cluster lost the same work {ATTEMPTS} times ({error}).",
                    "Look at its workers' logs; the same command goes on.",
                ) from error
            again.append(task)
        else:
            yield task, result


def _run(
    executor: Executor,
    work: Callable[[TaskT], ResultT],
    again: deque[TaskT],
    left: Iterator[TaskT],
    in_work: dict[Future[ResultT], TaskT],
    at_once: int,
) -> Iterator[Future[ResultT]]:
    """Keep `at_once` tasks in work, or as many as are left; yield the future of each that ends.

    The caller takes the future out of `in_work`; what it appends to `again` is done first.
    """
    while True:
        while len(in_work) < at_once:
            task = again.popleft() if again else next(left, None)
            if task is None:
                break
            again.appendleft(task)  # until it is taken: a pool may be found broken here as well
            in_work[executor.submit(work, task)] = task
            again.popleft()
        if not in_work:
            return
        yield from wait(in_work, return_when=FIRST_COMPLETED).done


def _follow_parent() -> None:
    """End this process when its parent has died; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
