"""CIFAR's two archives, written by the test in their published layouts."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data.decode import open_image
from alexnet.data.sources import open_source
from alexnet.errors import DataError
from alexnet.pickles import load_arrays

from .test_ilsvrc import tar_of

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
