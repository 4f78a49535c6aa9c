"""Files that want to run something (scenario 9), and damaged ones of every format.

The long form of the second is ``benchmarks/mutate_imports.py``.
"""

import contextlib
import io
import os
import pickle
import shutil
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import AlexNetError, MissingExtraError, RunError
from alexnet.interop import caffe
from alexnet.interop.imports import import_file
from alexnet.pickles import load_arrays
from tests.interop.caffe_files import Step, alexnet, caffemodel, field, prototxt
from tests.interop.convnet_files import checkpoint, one_tower, pickled, two_towers
from tests.interop.samples import (
    BESIDE,
    WIDTHS,
    damaged,
    forget_peak,
    imported,
    memory,
    originals,
    payloads,
    saved,
    with_pickle,
)

pytestmark = pytest.mark.slow  # a thousand damaged files

MUTATIONS = int(os.environ.get("ALEXNET_MUTATIONS", "60"))
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
    "where",
    ["cuda-convnet", "inside cuda-convnet", "pth", "pth, before 1.6", "batches.meta", "dictionary"],
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
        elif where == "dictionary":
            data = files[where][: files[where].index(b"\n") + 1] + payload
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


def endless() -> object:
    """Return a value of 200 pairs whose text would have no end."""
    pair: object = ()
    for _ in range(200):
        pair = (pair, pair)
    return pair


@pytest.mark.parametrize("name", ["name", "pool", "inputs", "stride", "neuron", "weights", "epoch"])
def test_values_without_an_end_are_never_printed_or_compared(name, tmp_path):
    layers = two_towers(divisor=16, classes=5)
    for layer in layers.values():
        if name in layer:
            layer[name] = endless()
    state = {"layers": layers, "epoch": endless() if name == "epoch" else 90}
    (tmp_path / "net").write_bytes(pickled({"model_state": state}))
    needed = name not in ("name", "epoch")
    started = time.perf_counter()
    with pytest.raises(RunError) if needed else contextlib.nullcontext():
        import_file(tmp_path / "net", tmp_path / "run")
    assert time.perf_counter() - started < SECONDS


def test_nor_are_those_of_the_files_beside(files, tmp_path):
    (tmp_path / "net").write_bytes(files["cuda-convnet, one tower"])
    meta = {"data_mean": [endless()] * 3, "label_names": [endless()] * 5}
    (tmp_path / "meta").write_bytes(pickled(meta))
    for beside in ({"mean": tmp_path / "meta"}, {"classes": tmp_path / "meta"}):
        with pytest.raises(RunError, match=r"no data_mean|no text"):
            import_file(tmp_path / "net", tmp_path / "run", **beside)
    twice = b"(" + b")" + b"2\x86" * 200
    for data in (
        b"\x80\x04" + twice + b"2\x93.",
        b"\x80\x02cnumpy\ndtype\n" + twice[1:] + b"\x85R.",
    ):
        with pytest.raises(AlexNetError, match=r"no text|type unknown"):
            load_arrays(data)


def test_damaged_files_are_imported_or_refused_with_a_sentence(files, tmp_path):
    good = files["caffemodel, newer"]
    for kind, original in files.items():
        imported(kind, original, tmp_path, good)  # undamaged, it is read
        shutil.rmtree(tmp_path / "run")
        refused = []
        for number, data in enumerate(damaged(original, MUTATIONS, seed=1)):
            started = time.process_time()
            try:
                imported(kind, data, tmp_path, good, write=number % 20 == 0)
            except AlexNetError as error:
                refused.append(str(error))
            assert time.process_time() - started < SECONDS, (kind, number)
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        assert len(refused) > MUTATIONS // 5, kind
        assert all(20 < len(sentence) < 2000 for sentence in refused), kind


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts memory here")
def test_a_small_file_takes_little_memory(files, tmp_path):
    """What a file declares is compared with what it holds before anything is made of it."""
    held = memory("VmRSS")
    forget_peak()
    huge = (2**40).to_bytes(6, "little")
    npy = io.BytesIO()
    npy.write(files["npy"].replace(b"(3, 230, 230)", b"(3, 9999999999, 9)"))
    small = {
        "npy": npy.getvalue(),
        "cuda-convnet": b"\x80\x02\x8a\x06" + huge + b"\x8e" + huge + b"\0\0.",
        "cuda-convnet, bytes": b"\x80\x05\x96" + huge + b"\0\0" + b"}.",
        "cuda-convnet, noted far away": b"\x80\x02}r\xff\xff\xff\x7f.",
        "caffemodel": b"\xa2\x06\xff\xff\xff\xff\x7f" + b"\0" * 100,
        "caffemodel, in short runs": (field(5, 1.0) + field(9, 1)) * 90_000,
        "onnx": b"\x08\x07:\xff\xff\xff\xff\x7f" + b"\0" * 100,
        "onnx, empty nodes": field(7, field(1, b"") * 2_000_000),
    }
    for kind, data in small.items():
        started = time.perf_counter()
        with pytest.raises(RunError):
            imported(kind, data, tmp_path, files["caffemodel, newer"])
        assert time.perf_counter() - started < SECONDS, kind
    assert memory("VmHWM") - held < 50  # MB
    forget_peak()
    kept = np.ones(20_000_000)
    assert memory("VmHWM") - held > 100, kept.size  # it would be seen


@pytest.mark.parametrize("step", [b"R", b"\x81"], ids=["REDUCE", "NEWOBJ"])
@pytest.mark.parametrize("arguments", [bytes(4_000_000), np.zeros(4_000_000, np.uint8)], ids=type)
def test_bytes_and_arrays_are_no_arguments_of_a_call(arguments, step):
    """Unpacked, they would be an object for every byte, some forty times their size."""
    held = pickle.dumps(arguments, 3)
    data = b"\x80\x03cnumpy\nndarray\n" + held[2:-1] + step + b"."
    tracemalloc.start()
    try:
        with pytest.raises(AlexNetError, match="calls something that is no name"):
            load_arrays(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


def test_only_names_are_called():
    for steps in (b"X\x01\0\0\0x)R", b"N)\x81", b"(K\x01K\x02o", b"cnumpy\nndarray\n]R",
                  b"(cnumpy\ndtype\nX\x02\0\0\0f4o)R"):  # fmt: skip
        with pytest.raises(AlexNetError, match="calls something that is no name"):
            load_arrays(b"\x80\x02" + steps + b".")
    assert load_arrays(b"\x80\x02(inumpy\nndarray\n.").shape == (0,)
    assert load_arrays(b"\x80\x02(cnumpy\nndarray\no.").shape == (0,)


def test_one_array_that_is_named_many_times_is_refused(files, tmp_path):
    """Weights are in the file once; a hundred layers of them would be a hundred copies."""
    one = alexnet("norm-pool", WIDTHS)[8]  # conv3
    steps = [one, Step("relu3", "ReLU", {})] * 60
    (tmp_path / "net.prototxt").write_text(prototxt(steps))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(steps[:2]))
    text = b"X" + (200_000).to_bytes(4, "little") + b"x" * 200_000 + b"q\x01"
    encoded = b"c_codecs\nencode\n" + b"h\x01" + b"\x85R0"
    (tmp_path / "net").write_bytes(b"\x80\x02" + text + encoded * 50 + b"N.")
    same = np.ones((16 * 9, 16), np.float32)
    layers = one_tower(divisor=16, classes=5)
    for number in range(40):
        layers[f"more{number}"] = {"type": "fc", "inputs": ["x"], "weights": [same] * 40}
    (tmp_path / "more").write_bytes(checkpoint(layers))
    for name, form, beside, sentence in (
        ("net.caffemodel", "caffe", tmp_path / "net.prototxt", "more numbers than the file"),
        ("net", "cuda-convnet", None, "more of itself than it holds"),
        ("more", "cuda-convnet", None, "more numbers than the file"),
    ):
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / name, tmp_path / "run", form=form, prototxt=beside)


def test_files_beside_are_named_when_they_are_wrong(files, tmp_path):
    for kind in BESIDE:
        with pytest.raises(RunError, match=f"file.{kind}"):
            imported(kind, b"\x00 nothing", tmp_path, files["caffemodel, newer"])
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "package"),
    [("onnx, the zoo's", "onnx"), ("caffemodel, newer", "google.protobuf")],
)
def test_without_the_extra_it_is_named(kind, package, files, tmp_path, monkeypatch):
    monkeypatch.setattr(caffe, "_schema", caffe._schema.__wrapped__)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'alexnet\[import\]'"):
        imported(kind, files[kind], tmp_path, files[kind])
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(RunError, match="There is no file"):
        import_file(tmp_path / "missing.pth", tmp_path / "run")
