"""CIFAR, WebDataset and Parquet, written by the test in their published layouts."""

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alexnet.data.decode import inspect_image
from alexnet.data.layouts import read_class_list
from alexnet.data.prepare import Options, prepare
from alexnet.data.sources import open_source
from alexnet.errors import DataError
from alexnet.pickles import load_arrays

from .archives import add, content, tar_of

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
            assert np.array_equal(np.asarray(inspect_image(item.read()).image), pixels)


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
            first = np.asarray(inspect_image(items[0].read()).image)
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


def test_the_numbers_of_a_parquet_file_go_by_its_own_names(photographs, tmp_path):
    huggingface(photographs, tmp_path, "train", names=("defective", "functional"))
    huggingface(photographs, tmp_path, "test", names=("functional", "defective"))  # 0: functional

    def names(split):
        source = open_source(tmp_path)
        return [source.classes[item.label] for item in source.splits[split]]

    assert names("train") == ["defective"] * 18 + ["functional"] * 18
    assert names("test") == ["functional"] * 6 + ["defective"] * 6
    huggingface(photographs, tmp_path, "test", names=("defective", "third"))
    with pytest.raises(DataError, match=r"Class 'third' of .* has no training image"):
        names("test")
    huggingface(photographs, tmp_path, "test", names=("functional",))
    with pytest.raises(DataError, match=r"has a label 1 and names 1 classes"):
        open_source(tmp_path)


@pytest.mark.parametrize("labels", [[0.2, 0.7], [0.0, 1.5]])
def test_a_label_of_parquet_is_a_whole_number(photographs, tmp_path, labels):
    photograph = next(photographs.rglob("*.png")).read_bytes()
    rows = [{"image": {"bytes": photograph, "path": ""}, "label": label} for label in labels]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="is no whole number"):
        open_source(tmp_path)
    for row, label in zip(rows, (0.0, 1.0), strict=True):
        row["label"] = label
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    assert open_source(tmp_path).classes == ("0", "1")


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


def pixel(number: int) -> bytes:
    return b"P6 1 1 255\n" + bytes([number, 0, 0])


def webdataset(root: Path, *members: tuple[str, bytes], name: str = "train-0.tar") -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, data in members:
            add(tar, member, data)
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(out.getvalue())
    return root


def test_a_key_that_a_shard_has_twice_is_two_samples(tmp_path):
    members = [
        m for n in range(8) for m in ((f"{n % 2}.ppm", pixel(n)), (f"{n % 2}.cls", b"%d" % n))
    ]
    source = open_source(webdataset(tmp_path / "data", *members))
    held = [(item.read(), source.classes[item.label]) for s in source.splits.values() for item in s]
    assert sorted(held, key=lambda one: one[1]) == [(pixel(n), str(n)) for n in range(8)]
    apart = sorted(dict(members).items(), key=lambda member: member[0][-3:])  # labels, then images
    source = open_source(webdataset(tmp_path / "data", *apart))
    assert sorted(i.read() for s in source.splits.values() for i in s) == [pixel(6), pixel(7)]


def test_a_key_may_have_dots(tmp_path):
    members = [
        m for n in range(4) for m in ((f"a 2.{n}.ppm", pixel(n)), (f"a 2.{n}.cls", b"%d" % n))
    ]
    source = open_source(webdataset(tmp_path / "data", *members))
    assert sorted(i.read() for s in source.splits.values() for i in s) == [
        pixel(n) for n in range(4)
    ]


@pytest.mark.parametrize("ending", ["json", "txt", "caption"])
def test_shards_without_labels_are_refused_in_a_sentence(tmp_path, ending):
    members = [m for n in range(4) for m in ((f"{n}.ppm", pixel(n)), (f"{n}.{ending}", b"{}"))]
    with pytest.raises(DataError, match=r"No image in the tars .* has a label. .* KEY.cls"):
        open_source(webdataset(tmp_path / "data", *members))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffdress\nhat\n", "dress\nhat\n\n", "0: dress\n1: hat\n", "0, dress\r\n1, hat\r\n",
        "1\that\n0\tdress\n", "{0: 'dress',\n 1: 'hat'}", '{"0": "dress", "1": "hat"}',
        '["dress", "hat"]', "{'hat': 1, 'dress': 0}",
    ],
)  # fmt: skip
def test_a_list_of_classes_in_any_of_its_forms(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    assert read_class_list(tmp_path / "classes.txt") == ["dress", "hat"]


@pytest.mark.parametrize(
    "names", [["7 up", "3 in one"], ["0 K", "300 K"], ["{", "}"], ["a: b", "c"]]
)
def test_names_that_look_like_numbers_or_code_stay(tmp_path, names):
    (tmp_path / "classes.txt").write_text("\n".join(names))
    assert read_class_list(tmp_path / "classes.txt") == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"crane\nhat\ncrane\n", "'crane' in lines 1 and 3"),
        (b"a\n\nb\n", "no name in line 2"),
        (b"a\n\xff\n", "cannot be read"),
        (b"[" * 9999, "has|cannot"),
        (b"{0: 'a', 2: 'b'}", "no name in line 2"),
    ],
)
def test_a_list_of_classes_that_is_none_is_refused_with_the_line(tmp_path, data, message):
    (tmp_path / "classes.txt").write_bytes(data)
    if data[:2] == b"[[":
        assert len(read_class_list(tmp_path / "classes.txt")) == 1  # a name, if an odd one
        return
    with pytest.raises(DataError, match=message):
        read_class_list(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("where", "image", "label", "labels"),
    [
        ("train.parquet", "img", "labels", [0, 1, 0, 1]),
        ("plain_text/train-00000.parquet", "image", "fine_label", [0, 1, 0, 1]),
        ("default/train/0000.parquet", "picture", "category", [0, 1, 0, 1]),
        ("data/train.parquet", "image", "label", ["a", "b", "a", "b"]),
        ("train.parquet", "image", "label", [0, 2, 0, 2]),
    ],
)
def test_parquet_as_it_is_handed_around(tmp_path, where, image, label, labels):
    rows = [{image: {"bytes": pixel(n)}, label: value} for n, value in enumerate(labels)]
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / where)
    beside = (tmp_path / where.replace("train/0000", "train")).with_name("other.parquet")
    shutil.copy(tmp_path / where, beside)
    source = open_source(tmp_path)
    assert source.classes == tuple(str(value) for value in labels[:2])
    assert "other.parquet does not say which split it is: passed over." in source.notes
    held = sorted((i.read(), i.label) for s in source.splits.values() for i in s)
    assert held == [(pixel(0), 0), (pixel(1), 1), (pixel(2), 0), (pixel(3), 1)]


def test_parquet_that_cannot_be_meant_is_refused_before_the_work(tmp_path):
    rows = [{"image": {"bytes": None, "path": f"{n}.png"}, "label": n} for n in range(2)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for schema in (None, pa.schema({"image": kind, "label": pa.int64()})):
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "train.parquet")
        with pytest.raises(DataError, match="has the paths of images and not the images"):
            open_source(tmp_path)
    rows = [{"image": {"bytes": pixel(n)}, "label": n or None} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"1 of the 3 train images .* without a label"):
        open_source(tmp_path)
    (tmp_path / "train.parquet").unlink()
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows[1:]), tmp_path / name / "train.parquet")
    with pytest.raises(DataError, match="several data sets: large, small"):
        open_source(tmp_path)


def test_a_class_without_an_image_is_none_and_one_that_is_only_tested_is_refused(tmp_path):
    members = [m for n in range(4) for m in ((f"{n}.ppm", pixel(n)), (f"{n}.cls", b"%d" % (n % 2)))]
    webdataset(tmp_path / "data", *members)
    (tmp_path / "data" / "classes.txt").write_text("a\nb\nc\n")
    source = open_source(tmp_path / "data")
    assert source.classes == ("a", "b")
    assert "1 names without an image make no class: c." in source.notes
    webdataset(tmp_path / "data", ("0.ppm", pixel(0)), ("0.cls", b"2"), name="val-0.tar")
    with pytest.raises(DataError, match=r"Class 'c' .* has no training image"):
        open_source(tmp_path / "data")
