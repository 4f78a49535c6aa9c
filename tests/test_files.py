"""Who writes, locks first: one holder at a time, who says so, and none after a kill."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from alexnet import files
from alexnet.errors import AlexNetError, RunError
from alexnet.files import atomic_write, lock, translate_os_error

HOLDER = """
import sys, time
from pathlib import Path
from alexnet.files import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""
REFUSAL = RunError("Another process writes there.", "Wait for it.")


@pytest.fixture
def holder(tmp_path):
    """Return a process that holds ``.lock`` in the folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_by_whom(tmp_path, holder):
    told = rf"writes there \(process {holder.pid} on .+\)\. Wait for it\."
    with pytest.raises(RunError, match=told), lock(tmp_path / ".lock", REFUSAL):
        pass
    holder.kill()
    holder.wait()
    with lock(tmp_path / ".lock", REFUSAL):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} ")
    assert not (tmp_path / ".lock").exists()


def test_who_waits_says_for_whom_and_goes_on_after_a_kill(tmp_path, holder, caplog, monkeypatch):
    monkeypatch.setattr(files, "SAID_AFTER", 0.1)
    threading.Timer(0.3, holder.kill).start()
    with lock(tmp_path / ".lock"):
        pass
    assert f"Waiting for process {holder.pid}" in caplog.text


def test_many_threads_hold_a_lock_one_after_another(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with lock(tmp_path / ".lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 120
    assert max(most) == 1
    assert not list(tmp_path.iterdir())


def test_writers_of_one_file_take_turns(tmp_path):
    """Each finds its own content whole in the temporary file, and nothing is left of it."""
    path, torn = tmp_path / "x.json", []

    def write(letter):
        for _ in range(10):
            with atomic_write(path) as temporary:
                temporary.write_text(letter * 5000)
                time.sleep(0.001)
                torn.extend(set(temporary.read_text()) - {letter})

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert len(set(path.read_text())) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_text("before")
    with pytest.raises(LookupError), atomic_write(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half" + {}["the rest"])
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("named", ["run", "run/checkpoints/x", "run/.config.part", None])
def test_a_refusal_within_a_folder_is_told_of_it(tmp_path, named):
    error = OSError(errno.ENOSPC, "No space left on device", named and str(tmp_path / named))
    with (
        pytest.raises(AlexNetError, match=r"The disk is full: .*run"),
        translate_os_error(tmp_path / "run"),
    ):
        raise error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_refusal_elsewhere_stays_what_it_was(tmp_path, number):
    """A full /dev/shm or a forbidden compiler's cache says nothing of the run's disk."""
    error = OSError(number, os.strerror(number), "/dev/shm/torch_1")
    with pytest.raises(OSError, match="torch_1") as caught, translate_os_error(tmp_path / "run"):
        raise error
    assert caught.value is error
