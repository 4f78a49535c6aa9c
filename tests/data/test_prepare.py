"""A prepared data set is exact, resumable, and says what it left out."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from alexnet.data import prepare as module
from alexnet.data.decode import decode_jpeg
from alexnet.data.prepare import Options, prepare
from alexnet.data.shards import damaged_files, open_prepared
from alexnet.data.sources import open_source
from alexnet.errors import AlexNetError, DataError
from alexnet.files import sha256


def contents(root):
    return {file.name: sha256(file) for file in root.iterdir()}


def pixels(split):
    return np.stack([decode_jpeg(split[i].image) for i in range(len(split))])


def test_images_labels_and_names_are_those_of_the_source(prepared, photographs):
    source = open_source(photographs)
    assert prepared.classes == ("defective", "functional")
    for name, split in prepared.splits.items():
        items = source.splits[name]
        assert [split[i].path for i in range(len(split))] == [item.path for item in items]
        assert split.labels.tolist() == [item.label for item in items]
        assert pixels(split).shape == (len(items), 64, 64, 3)


def test_mean_image_and_colour_axes_are_numpys_on_the_same_photographs(prepared):
    images = pixels(prepared.splits["train"]).astype(np.float64)
    statistics = prepared.statistics
    np.testing.assert_allclose(statistics.mean_image, images.mean(0).transpose(2, 0, 1), rtol=1e-6)
    flat = images.reshape(-1, 3)
    covariance = np.cov(flat.T, bias=True)
    axes, stdevs = statistics.colour_eigenvectors.astype(float), statistics.colour_stdevs
    np.testing.assert_allclose(axes @ np.diag(stdevs**2.0) @ axes.T, covariance, atol=0.02)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)


def test_any_arrow_reader_opens_a_shard(prepared):
    table = pa.ipc.open_file(str(prepared.root / "train-00000.arrow")).read_all()
    assert table.column_names == ["image", "label", "path"]
    assert table.num_rows == 36


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_bytes_do_not_depend_on_the_workers(prepared, photographs, tmp_path, workers):
    prepare(open_source(photographs), tmp_path / "again", Options(size=64), workers=workers)
    assert contents(tmp_path / "again") == contents(prepared.root)


def test_a_second_time_does_nothing(prepared, photographs):
    before = {file: file.stat().st_mtime_ns for file in prepared.root.iterdir()}
    prepare(open_source(photographs), prepared.root, Options(size=64))
    assert before == {file: file.stat().st_mtime_ns for file in prepared.root.iterdir()}


KILLED = """
import sys
from alexnet.data import prepare as module
from alexnet.data.sources import open_source
module.SHARD_IMAGES, module.CHUNK = 3, 1
module.prepare(open_source(sys.argv[1]), sys.argv[2], module.Options(size=64))
"""


def test_a_killed_preparation_goes_on_to_the_same_bytes(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_IMAGES", 3)
    prepare(open_source(photographs), tmp_path / "undisturbed", Options(size=64))
    killed = tmp_path / "killed"
    started = 0
    while not (killed / "dataset.json").exists():
        before = len(list(killed.glob("*.arrow"))) if killed.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", KILLED, photographs, killed])
        started += 1
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if killed.exists() and len(list(killed.glob("*.arrow"))) >= before + 3:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert started >= 3
    assert contents(killed) == contents(tmp_path / "undisturbed")


def test_what_cannot_be_decoded_is_left_out_named_and_counted(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    bad = tmp_path / "data" / "train" / "defective"
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.png").write_text("no image")
    manifest = prepare(open_source(tmp_path / "data"), tmp_path / "out", Options(size=32))
    assert manifest.counts == {"train": 36, "test": 12}
    assert [path for path, _ in manifest.skipped] == [
        "train/defective/empty.jpg",
        "train/defective/text.png",
    ]
    assert "empty" in manifest.skipped[0][1]


def test_a_class_left_without_an_image_is_refused(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    for file in (tmp_path / "data" / "train" / "defective").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="'defective' has no training image that can be decoded"):
        prepare(open_source(tmp_path / "data"), tmp_path / "out", Options(size=32))


def test_a_folder_with_something_else_is_left_alone(prepared, photographs, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        prepare(open_source(photographs), tmp_path)
    with pytest.raises(DataError, match="holds another prepared data set"):
        prepare(open_source(photographs), prepared.root, Options(size=128))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_flipped_bit_is_found(prepared, tmp_path):
    shutil.copytree(prepared.root, tmp_path / "data")
    shard = tmp_path / "data" / "train-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert damaged_files(tmp_path / "data") == ["train-00000.arrow"]
    assert damaged_files(prepared.root) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"format": 99}, "Install a newer"),
        (lambda m: {"format": 1}, "is damaged"),
        (lambda m: m | {"counts": {"train": 7}}, "should have 7"),
    ],
)
def test_a_manifest_that_cannot_be_is_a_sentence(prepared, tmp_path, change, message):
    shutil.copytree(prepared.root, tmp_path / "data")
    path = tmp_path / "data" / "dataset.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=message):
        open_prepared(tmp_path / "data")


@pytest.mark.parametrize("small_disk", [300], indirect=True)
def test_a_full_disk_is_a_sentence_and_leaves_no_half_file(photographs, small_disk):
    with pytest.raises(AlexNetError, match=r"GB are needed|The disk is full"):
        prepare(open_source(photographs), small_disk / "data", Options(size=256))
    assert not list((small_disk / "data").glob("*.arrow"))
    assert not list(small_disk.rglob("*.part"))
