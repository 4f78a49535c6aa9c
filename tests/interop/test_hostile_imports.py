"""Files that want to run something (scenario 9), and damaged ones of every format.

The long form of the second is ``benchmarks/mutate_imports.py``.
"""

import io
import os
import pickle
import shutil
import time

import pytest

from alexnet.errors import AlexNetError, RunError
from alexnet.interop.imports import import_file
from alexnet.pickles import load_arrays
from tests.interop.samples import (
    BESIDE,
    damaged,
    imported,
    originals,
    payloads,
    saved,
    with_pickle,
)

MUTATIONS = int(os.environ.get("ALEXNET_MUTATIONS", "150"))
SECONDS = 20  # for one small file, on a machine that does other things too


@pytest.fixture(scope="module")
def files():
    return originals()


def test_the_payloads_do_run_where_python_reads_them(tmp_path):
    marker = tmp_path / "ran"
    hostile = payloads(marker)
    assert len(hostile) >= 20
    for name, payload in hostile.items():
        pickle.loads(payload)
        assert marker.exists(), name
        marker.unlink()


LEGACY = saved({}, zipped=False)
HEAD = LEGACY[: LEGACY.index(b".", LEGACY.index(b"type_sizes")) + 1]  # before the content


@pytest.mark.parametrize(
    "where", ["cuda-convnet", "inside cuda-convnet", "pth", "pth, before 1.6", "batches.meta"]
)
def test_no_payload_runs(where, files, tmp_path):
    marker = tmp_path / "ran"
    for name, payload in payloads(marker).items():
        kind = where.removeprefix("inside ")
        data = payload
        if where == "pth":
            data = with_pickle(files["pth"], payload)
        elif where == "pth, before 1.6":
            data = HEAD + payload
        elif where == "inside cuda-convnet":
            data = (
                b"\x80\x02}X\x0b\0\0\0model_state" + payload.removeprefix(b"\x80\x02")[:-1] + b"s."
            )
        with pytest.raises(RunError, match=r"not run|not needed|no name|step|no whole|key|damaged"):
            imported(kind, data, tmp_path, files["caffemodel, newer"])
        assert not marker.exists(), name
        assert not (tmp_path / "run").exists()


def test_pickles_that_take_forever_are_refused_at_once():
    doubled = b"\x80\x02" + b")" + b"2\x86" * 200  # a pair of the same pair of the same pair ...
    started = time.perf_counter()
    for data, sentence in (
        (doubled + b"}" + b"\x86.", ""),
        (b"\x80\x02}" + doubled[2:] + b"Ns.", "key of type tuple"),
        (b"\x80\x02(" + doubled[2:] + b"Nd.", "key of type tuple"),
        (b"\x80\x02" + b"]" * 3 + b"a" * 9 + b".", "no whole pickle"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 10 + b".", "no whole pickle"),
        (b"\x80\x02N" * 10_000 + b".", ""),
    ):
        if not sentence:
            load_arrays(data)
            continue
        with pytest.raises(AlexNetError, match=sentence):
            load_arrays(data)
    assert time.perf_counter() - started < SECONDS


def test_damaged_files_are_imported_or_refused_with_a_sentence(files, tmp_path):
    good = files["caffemodel, newer"]
    for kind, original in files.items():
        imported(kind, original, tmp_path, good)  # undamaged, it is read
        shutil.rmtree(tmp_path / "run")
        refused = []
        for number, data in enumerate(damaged(original, MUTATIONS, seed=1)):
            started = time.perf_counter()
            try:
                imported(kind, data, tmp_path, good, write=number % 20 == 0)
            except AlexNetError as error:
                refused.append(str(error))
            assert time.perf_counter() - started < SECONDS, (kind, number)
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        assert len(refused) > MUTATIONS // 5, kind
        assert all(20 < len(sentence) < 2000 for sentence in refused), kind


def test_a_small_file_takes_little_memory(files, tmp_path):
    """What a file declares is compared with what it holds before anything is made of it."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    huge = (2**40).to_bytes(6, "little")
    npy = io.BytesIO()
    npy.write(files["npy"].replace(b"(3, 230, 230)", b"(3, 9999999999, 9)"))
    small = {
        "npy": npy.getvalue(),
        "cuda-convnet": b"\x80\x02\x8a\x06" + huge + b"\x8e" + huge + b"\0\0.",
        "caffemodel": b"\xa2\x06\xff\xff\xff\xff\x7f" + b"\0" * 100,
        "onnx": b"\x08\x07:\xff\xff\xff\xff\x7f" + b"\0" * 100,
    }
    for kind, data in small.items():
        with pytest.raises(RunError):
            imported(kind, data, tmp_path, files["caffemodel, newer"])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kB


def test_files_beside_are_named_when_they_are_wrong(files, tmp_path):
    for kind in BESIDE:
        with pytest.raises(RunError, match=f"file.{kind}"):
            imported(kind, b"\x00 nothing", tmp_path, files["caffemodel, newer"])
        assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(RunError, match="There is no file"):
        import_file(tmp_path / "missing.pth", tmp_path / "run")
