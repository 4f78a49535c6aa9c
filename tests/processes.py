"""Processes that tests start and kill: their workers, and waiting for what they do."""

import time
from pathlib import Path


def workers(process):
    """Return the processes that a process has started, but for Python's own helper."""
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


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
