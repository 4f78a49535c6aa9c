"""Locks of files and folders: one holder at a time, and none after a kill."""

import subprocess
import sys

import pytest

from alexnet.errors import RunError
from alexnet.files import lock

HOLDER = """
import sys, time
from pathlib import Path
from alexnet.errors import RunError
from alexnet.files import lock
with lock(Path(sys.argv[1]), RunError("held")):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", ["", ".lock"], ids=["a folder", "a file that is made"])
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, name):
    path = tmp_path / name
    refusal = RunError("Another process writes there.", "Wait for it.")
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="Another process"), lock(path, refusal):
            pass
        holder.kill()
    with lock(path, refusal):
        assert path.exists()
    with lock(path, refusal):  # it was given back
        pass
