"""CIFAR, WebDataset and Parquet, written by the test in their published layouts."""

import gzip
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alexnet.data.decode import open_image
from alexnet.data.prepare import Options, prepare
from alexnet.data.sources import open_source
from alexnet.errors import DataError
from alexnet.pickles import load_arrays

from .archives import content, tar_of

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def batches(photographs) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Return five training batches and a test batch of 8 photographs each, 32x32 and coloured."""
    files = sorted(photographs.rglob("*.png"))
    draws, found = np.random.default_rng(0), {}
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        images = []
        for file in files[8 * number : 8 * number + 8]:
            grey = np.asarray(Image.open(file).convert("L").resize((32, 32)))
            images.append(np.stack([grey, grey.T, grey[::-1]]).reshape(-1))
        found[name] = (np.array(images, np.uint8), draws.integers(0, 10, 8).tolist())
    return found


def check(source, batches) -> None:
    for split in ("train", "test"):
        expected = [
            (pixels.reshape(3, 32, 32).transpose(1, 2, 0), label)
            for name, (data, labels) in sorted(batches.items())
            if name.startswith("test") == (split == "test")
            for pixels, label in zip(data, labels, strict=True)
        ]
        items = list(source.splits[split])
        assert len(items) == len(expected)
        for item, (pixels, label) in zip(items, expected, strict=True):
            assert item.label == label
            assert np.array_equal(np.asarray(open_image(item.read())), pixels)


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_binary(batches, tmp_path, packed):
    files = {"batches.meta.txt": "\n".join(NAMES).encode()}
    for name, (data, labels) in batches.items():
        rows = zip(data, labels, strict=True)
        files[f"{name}.bin"] = b"".join(bytes([label]) + row.tobytes() for row, label in rows)
    where = tmp_path / "cifar-10-binary.tar.gz"
    if packed:
        inside = {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}
        where.write_bytes(gzip.compress(tar_of(inside)))
    else:
        where = tmp_path / "cifar-10-batches-bin"
        where.mkdir()
        for name, data in files.items():
            (where / name).write_bytes(data)
    source = open_source(where)
    assert source.classes == tuple(NAMES)
    check(source, batches)


def python2(data: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    """Return a batch as Python 2 pickled it: text is bytes, the array a C string of its own."""
    content = {b"batch_label": b"a batch", key: labels, b"data": data, b"filenames": [b"a.png"]}
    return pickle.dumps(content, protocol=2)


def test_cifar10_python(batches, tmp_path):
    files = {f"cifar-10-batches-py/{n}": python2(*batch) for n, batch in batches.items()}
    names = {b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}
    files["cifar-10-batches-py/batches.meta"] = pickle.dumps(names, protocol=2)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(tar_of(files)))
    source = open_source(tmp_path / "cifar-10-python.tar.gz")
    assert source.classes == tuple(NAMES)
    check(source, batches)


def test_cifar100_goes_by_its_fine_classes(batches, tmp_path):
    names = [f"fine{n:02}" for n in range(100)]
    binary = {"cifar-100-binary/fine_label_names.txt": "\n".join(names).encode()}
    python = {
        "cifar-100-python/meta": pickle.dumps({b"fine_label_names": [n.encode() for n in names]}, 2)
    }
    for split, name in (("train", "data_batch_1"), ("test", "test_batch")):
        data, labels = batches[name]
        fine = [90 + label for label in labels]
        rows = zip(data, fine, strict=True)
        binary[f"cifar-100-binary/{split}.bin"] = b"".join(
            bytes([7, label]) + row.tobytes() for row, label in rows
        )
        python[f"cifar-100-python/{split}"] = python2(data, fine, b"fine_labels")
    for kind, files in (("binary", binary), ("python", python)):
        archive = tmp_path / f"cifar-100-{kind}.tar.gz"
        archive.write_bytes(gzip.compress(tar_of(files)))
        source = open_source(archive)
        assert source.classes == tuple(names)
        for split, name in (("train", "data_batch_1"), ("test", "test_batch")):
            items = list(source.splits[split])
            assert [item.label - 90 for item in items] == batches[name][1]
            first = np.asarray(open_image(items[0].read()))
            assert np.array_equal(first, batches[name][0][0].reshape(3, 32, 32).transpose(1, 2, 0))


class Payload:
    """Pickles to a call of what it is given."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path, protocol):
    """Scenario 9, for the archives read here."""
    proof = tmp_path / "proof"
    import os
    import subprocess

    calls = [
        (os.system, f"touch {proof}"), (subprocess.call, ["touch", str(proof)]),
        (eval, f"open({str(proof)!r}, 'w')"), (exec, f"open({str(proof)!r}, 'w')"),
        (Path.touch, proof), (open, str(proof), "w"), (__import__, "antigravity"),
    ]  # fmt: skip
    for call, *arguments in calls:
        with pytest.raises(DataError, match=r"not run|no whole pickle"):
            load_arrays(pickle.dumps({b"data": Payload(call, *arguments)}, protocol))
    assert not proof.exists()


def test_broken_files_are_sentences(batches, tmp_path):
    root = tmp_path / "cifar"
    root.mkdir()
    (root / "batches.meta.txt").write_text("\n".join(NAMES))
    (root / "test_batch.bin").write_bytes(bytes(3073))
    (root / "data_batch_1.bin").write_bytes(bytes(3072))
    with pytest.raises(DataError, match=r"'data_batch_1.bin' .* no multiple of 3,073"):
        open_source(root)
    (root / "data_batch_1.bin").write_bytes(struct.pack("B", 200) + bytes(3072))
    with pytest.raises(DataError, match="labels that name no class"):
        open_source(root)
    for file in root.iterdir():
        file.unlink()
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b"]}))
    (root / "test_batch").write_bytes(pickle.dumps([1, 2])[:-3])
    with pytest.raises(DataError, match="no whole pickle"):
        open_source(root)
    (root / "test_batch").write_bytes(python2(np.zeros((2, 5), np.uint8), [0, 1]))
    with pytest.raises(DataError, match="no images and labels of CIFAR"):
        open_source(root)


def test_webdataset_tars(photographs, tmp_path):
    folder = open_source(photographs)
    for split, tars in (("train", 2), ("test", 1)):
        items = list(folder.splits[split])
        for number in range(tars):
            files = {}
            for index, item in enumerate(items[number::tars]):
                files[f"sample{number}{index:03}.png"] = item.read()
                files[f"sample{number}{index:03}.cls"] = str(item.label).encode()
                files[f"sample{number}{index:03}.json"] = b"{}"
            (tmp_path / f"cells-{split}-{number:04}.tar").write_bytes(tar_of(files))
    source = open_source(tmp_path)
    assert source.classes == ("0", "1")
    (tmp_path / "classnames.txt").write_text("defective\nfunctional\n")
    named = open_source(tmp_path)
    assert named.classes == folder.classes
    ours, theirs = content(named), content(folder)
    assert {k: sorted(v) for k, v in ours.items()} == {k: sorted(v) for k, v in theirs.items()}
    lone = tar_of({"a.png": b"x", "b.cls": b"1", "c.png": b"x", "c.cls": b"1"})
    (tmp_path / "cells-train-0000.tar").write_bytes(lone)
    assert any("2 samples lack" in note for note in open_source(tmp_path).notes)
    (tmp_path / "cells-train-0000.tar").write_bytes(tar_of({"c.png": b"x", "c.cls": b"one"}))
    with pytest.raises(DataError, match="is 'one', no number"):
        open_source(tmp_path)


def huggingface(photographs, root, split, names=("defective", "functional")):
    rows = [
        {"image": {"bytes": file.read_bytes(), "path": file.name}, "label": label}
        for label, name in enumerate(("defective", "functional"))
        for file in sorted((photographs / split / name).iterdir())
    ]
    table = pa.Table.from_pylist(rows)
    if names:
        features = {"info": {"features": {"label": {"names": list(names)}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, root / f"{split}-00000-of-00001.parquet", row_group_size=5)


def test_parquet_gives_the_images_of_the_folders(photographs, tmp_path):
    for split in ("train", "test"):
        huggingface(photographs, tmp_path, split)
    source, folders = open_source(tmp_path), open_source(photographs)
    assert source.classes == folders.classes
    for split in ("train", "test"):
        ours = [(item.read(), item.label) for item in source.splits[split]]
        assert ours == [(item.read(), item.label) for item in folders.splits[split]]


def test_parquet_without_a_label_or_an_image_column_is_refused(photographs, tmp_path):
    row = {"image": {"bytes": b"", "path": ""}, "label": -1}  # as hidden test labels are given
    for wrong, message in (
        (row, "without a label"),
        (row | {"label": None}, "without a label"),
        ({"label": 0}, "is not Parquet with the columns"),
    ):
        pq.write_table(pa.Table.from_pylist([wrong]), tmp_path / "train.parquet")
        with pytest.raises(DataError, match=message):
            open_source(tmp_path)


def test_parquet_without_class_names_takes_those_of_a_file_or_numbers(photographs, tmp_path):
    huggingface(photographs, tmp_path, "train", names=None)
    assert open_source(tmp_path).classes == ("0", "1")
    (tmp_path / "classes.txt").write_text("very bad\ngood\n")
    assert open_source(tmp_path).classes == ("very bad", "good")


def test_a_split_without_any_label_is_passed_over_and_half_a_one_is_refused(photographs, tmp_path):
    for split in ("train", "test"):
        huggingface(photographs, tmp_path, split)
    hidden = {"image": {"bytes": b"", "path": ""}, "label": -1}  # as ImageNet's test split
    pq.write_table(pa.Table.from_pylist([hidden] * 3), tmp_path / "val-00000-of-00001.parquet")
    source = open_source(tmp_path)
    assert set(source.splits) == {"train", "test"}
    assert "The val split has no labels: passed over." in source.notes
    half = [hidden, hidden | {"label": 1}]
    pq.write_table(pa.Table.from_pylist(half), tmp_path / "val-00000-of-00001.parquet")
    with pytest.raises(DataError, match="without a label"):
        open_source(tmp_path)


def test_a_parquet_file_that_is_damaged_inside_loses_its_row_group_and_no_other(
    photographs, tmp_path
):
    (tmp_path / "in").mkdir()
    for split in ("train", "test"):
        huggingface(photographs, tmp_path / "in", split)
    file = tmp_path / "in" / "train-00000-of-00001.parquet"
    about = pq.ParquetFile(file).metadata.row_group(2).column(0)
    data = bytearray(file.read_bytes())
    start = about.dictionary_page_offset or about.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    file.write_bytes(data)
    manifest = prepare(open_source(tmp_path / "in"), tmp_path / "out", Options(size=16))
    assert manifest.counts["train"] == 36 - 5
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {one["image"].split("/")[1] for one in report["skipped"]} == {
        "10", "11", "12", "13", "14",
    }  # fmt: skip
    assert "row group cannot be read" in report["skipped"][0]["reason"]
