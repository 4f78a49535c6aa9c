"""A prepared data set is exact, resumable, and says what it left out.

The long form of the kills, as a release runs it: ``ALEXNET_KILLS=100 pytest -k kill -n 0
--timeout 3000 tests/data/test_prepare.py``.
"""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from alexnet.data.archives import read_file
from alexnet.data.decode import jpeg_library
from alexnet.data.duplicates import find_near_duplicates
from alexnet.data.prepare import Options, describe_report, make_shard, prepare
from alexnet.data.samples import FileSlice, SampleIndex, Source
from alexnet.data.shards import open_prepared, verify
from alexnet.data.sources import open_source
from alexnet.data.statistics import PixelSums
from alexnet.errors import AlexNetError, DataError
from alexnet.files import sha256

KILLS = int(os.environ.get("ALEXNET_KILLS", "4"))


def contents(root):
    return {file.name: sha256(file) for file in root.iterdir()}


def pixels(split):
    return np.stack([split.pixels(i) for i in range(len(split))])


def test_images_labels_and_names_are_those_of_the_source(prepared, photographs):
    source = open_source(photographs)
    assert prepared.classes == ("defective", "functional")
    for name, split in prepared.splits.items():
        items = source.splits[name]
        assert [split[i].path for i in range(len(split))] == [item.path for item in items]
        assert [split.label(i) for i in range(len(split))] == [item.label for item in items]
        assert pixels(split).shape == (len(items), 64, 64, 3)


def test_mean_image_and_colour_axes_are_numpys_on_the_same_photographs(photographs, tmp_path):
    """They are of the pixels before JPEG: raw shards hold just those."""
    prepare(open_source(photographs), tmp_path, Options(size=64, raw=True))
    data = open_prepared(tmp_path)
    images = pixels(data.splits["train"]).astype(np.float64)
    statistics = data.statistics
    np.testing.assert_allclose(statistics.mean_image, images.mean(0).transpose(2, 0, 1), rtol=1e-6)
    flat = images.reshape(-1, 3)
    covariance = np.cov(flat.T, bias=True)
    axes, stdevs = statistics.colour_eigenvectors.astype(float), statistics.colour_stdevs
    np.testing.assert_allclose(axes @ np.diag(stdevs**2.0) @ axes.T, covariance, atol=0.02)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)


def test_sums_are_exact_at_any_size():
    """White images, the largest sums there can be, against Python's own whole numbers."""
    for size in (8, 258, 300):
        white = np.full((size, size, 3), 255, np.uint8)
        sums = PixelSums.of([white] * 3, size)
        assert (sums.total == 3 * 255).all()
        assert (sums.products == 3 * size * size * 255**2).all()


def test_any_arrow_reader_opens_a_shard(prepared):
    table = pa.ipc.open_file(str(prepared.root / "train-00000.arrow")).read_all()
    assert table.column_names == ["image", "label", "path", "crc32"]
    assert table.num_rows == 36


SMALL = Options(size=64, shard_images=6)


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory) -> dict[str, str]:
    """Return the files and checksums of a preparation in one process."""
    root = tmp_path_factory.mktemp("undisturbed") / "data"
    prepare(open_source(photographs), root, SMALL, workers=1)
    return contents(root)


@pytest.mark.parametrize("workers", [2, 8])
def test_the_bytes_do_not_depend_on_the_workers(undisturbed, photographs, tmp_path, workers):
    """Scenario 15."""
    prepare(open_source(photographs), tmp_path / "again", SMALL, workers=workers)
    assert contents(tmp_path / "again") == undisturbed


def test_a_second_time_does_nothing(prepared, photographs):
    before = {file: file.stat().st_mtime_ns for file in prepared.root.iterdir()}
    prepare(open_source(photographs), prepared.root, Options(size=64))
    assert before == {file: file.stat().st_mtime_ns for file in prepared.root.iterdir()}


PREPARE = """
import sys
from alexnet.data.prepare import Options
from alexnet.data.prepare import prepare
from alexnet.data.sources import open_source
if __name__ == "__main__":
    options = Options(size=64, shard_images=6)
    prepare(open_source(sys.argv[1]), sys.argv[2], options, workers=int(sys.argv[3]))
"""


def script(tmp_path: Path) -> Path:
    path = tmp_path / "prepare_it.py"
    path.write_text(PREPARE)
    return path


def children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    found = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


@pytest.mark.slow  # processes are started, and killed
def test_killed_preparations_go_on_to_the_same_bytes(undisturbed, photographs, tmp_path):
    """Killed at any moment, its workers with it; what is finished is never other bytes."""
    draws, command = random.Random(0), script(tmp_path)
    killed = finished = 0
    root = tmp_path / "data"
    while killed < KILLS or not finished:
        process = subprocess.Popen([sys.executable, command, photographs, root, "2"])
        workers: list[int] = []
        until = time.monotonic() + draws.uniform(0.1, 2.5)
        while process.poll() is None and (time.monotonic() < until or killed >= KILLS):
            workers = children(process.pid) or workers
            time.sleep(0.01)
        if process.poll() is None:
            process.kill()
            killed += 1
        process.wait()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{worker}/exe").exists() for worker in workers):
            assert time.monotonic() < deadline, "a worker outlives its parent"
            time.sleep(0.02)
        if (root / "dataset.json").exists() and not (root / "preparing.json").exists():
            assert contents(root) == undisturbed
            finished += 1
            shutil.rmtree(root)


@pytest.mark.slow  # processes are started, and killed
def test_killed_workers_are_replaced(undisturbed, photographs, tmp_path):
    """Scenario 14: four workers, one killed at a time; no finished shard is made again."""
    draws, done, kills, finished = random.Random(1), threading.Event(), 0, 0

    def kill() -> None:
        nonlocal kills
        while not done.wait(draws.uniform(0.4, 1.2)) and kills < KILLS:
            if alive := multiprocessing.active_children():
                draws.choice(alive).kill()
                kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while kills < KILLS or not finished:
            root = tmp_path / f"data{finished}"
            prepare(open_source(photographs), root, SMALL, workers=4)
            assert contents(root) == undisturbed
            finished += 1
    finally:
        done.set()
        killer.join()


def test_two_preparations_share_one_folder(undisturbed, photographs, tmp_path):
    """Scenario 15: as two machines would, with a folder between them."""
    command = [sys.executable, script(tmp_path), photographs, tmp_path / "data", "1"]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert contents(tmp_path / "data") == undisturbed


def read_or_die(piece: FileSlice) -> bytes:
    """Read a file; one of them ends the process, as a fault in a decoder would."""
    if piece.name.endswith("cell0002.png"):
        os._exit(139)
    return read_file(piece)


SCRIPT = """
import sys
from alexnet.data.prepare import Options, open_or_prepare
print("begun", flush=True)
data = open_or_prepare(sys.argv[1], Options(size=16), workers=2)
print(len(data.train))
"""


def test_a_script_without_a_guard_prepares_once(photographs, tmp_path):
    """Workers are spawned; the user's script is not to begin anew in each."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, photographs], capture_output=True, text=True,
        env={**os.environ, "ALEXNET_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    images = len(open_source(photographs).splits["train"])
    assert (done.stdout.split(), done.stderr) == (["begun", str(images)], "")


@pytest.mark.slow  # processes are started, and killed
def test_an_image_that_kills_its_process_is_left_out_and_its_neighbours_are_not(
    photographs, tmp_path
):
    files = sorted(photographs.glob("train/*/*.png"))
    names = [f"cell{number:04}.png" for number in range(8)]
    for name, file in zip(names, files, strict=False):
        shutil.copy(file, tmp_path / name)
    index = partial(SampleIndex.of, read_or_die)
    slices = [(FileSlice(name, str(tmp_path)), number % 2) for number, name in enumerate(names)]
    source = Source("cells", ("a", "b"), {"train": index(slices[:6]), "test": index(slices[6:])})
    manifest = prepare(source, tmp_path / "out", Options(size=32, shard_images=4), workers=2)
    assert manifest.counts == {"train": 5, "test": 2}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"] == [
        {"split": "train", "image": names[2], "reason": "It ends the process that decodes it."}
    ]


CLUSTER = """
import os, signal, sys, threading, time
from distributed import Client, LocalCluster
from alexnet.data.prepare import Options
from alexnet.data.prepare import prepare
from alexnet.data.sources import open_source
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            pid = client.submit(os.getpid).result()
            def kill():
                while not list(__import__("pathlib").Path(sys.argv[2]).glob("*.arrow")):
                    time.sleep(0.005)
                os.kill(pid, signal.SIGKILL)
            killer = threading.Thread(target=kill)
            killer.start()
            prepare(open_source(sys.argv[1]), sys.argv[2], Options(size=64, shard_images=6),
                    executor=client.get_executor())
            killer.join()
"""


@pytest.mark.slow  # processes are started, and killed
def test_a_dask_cluster_that_loses_a_worker_makes_the_same_bytes(
    undisturbed, photographs, tmp_path
):
    command = tmp_path / "cluster.py"
    command.write_text(CLUSTER)
    done = subprocess.run(
        [sys.executable, command, photographs, tmp_path / "data"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "data") == undisturbed


def test_what_cannot_be_decoded_is_left_out_named_and_counted(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    bad = tmp_path / "data" / "train" / "defective"
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.png").write_text("no image")
    manifest = prepare(open_source(tmp_path / "data"), tmp_path / "out", Options(size=32))
    assert manifest.counts == {"train": 36, "test": 12}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(one["image"], one["reason"]) for one in report["skipped"]] == [
        ("train/defective/empty.jpg", "The file is empty."),
        ("train/defective/text.png", "It is not an image of a known format."),
    ]
    assert manifest.skipped == 2


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


def test_every_flipped_bit_is_found_and_its_image_named(prepared, tmp_path):
    """Scenario 13; the long form makes 1,000 flips: ``ALEXNET_KILLS=1000``."""
    draws = random.Random(2)
    files = ["train-00000.arrow", "test-00000.arrow", "statistics.safetensors"]
    shutil.copytree(prepared.root, tmp_path / "data")
    assert verify(tmp_path / "data") == []
    for _ in range(max(20, KILLS)):
        file = tmp_path / "data" / draws.choice(files)
        whole = file.read_bytes()
        data = bytearray(whole)
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        file.write_bytes(data)
        assert [damage.file for damage in verify(tmp_path / "data")] == [file.name]
        file.write_bytes(whole)
    image = prepared.splits["train"][7].image
    shard = tmp_path / "data" / files[0]
    shard.write_bytes(shard.read_bytes().replace(image, image[:50] + b"\0" * 9 + image[59:]))
    (damage,) = verify(tmp_path / "data")
    assert f"{prepared.splits['train'][7].path!r} (row 7 of {files[0]})" in damage.reason


@pytest.mark.parametrize("harm", ["deleted", "cut short"])
def test_a_missing_or_shortened_shard_is_found(prepared, tmp_path, harm):
    shutil.copytree(prepared.root, tmp_path / "data")
    shard = tmp_path / "data" / "test-00000.arrow"
    if harm == "deleted":
        shard.unlink()
    else:
        os.truncate(shard, shard.stat().st_size // 2)
    (damage,) = verify(tmp_path / "data")
    assert damage.file == "test-00000.arrow"
    assert ("cannot be read" if harm == "deleted" else "should have") in damage.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"format": 99}, "Install a newer"),
        (lambda m: m | {"format": 1}, "Prepare the data again"),
        (lambda m: {"format": 2}, "is damaged"),
        (lambda m: m | {"counts": {"train": 7}}, "do not hold the 7"),
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


def test_a_source_that_changed_is_noticed(photographs, tmp_path):
    """Begun or finished: photographs that were replaced are not mixed with those of before."""
    shutil.copytree(photographs, tmp_path / "data")
    file = next((tmp_path / "data" / "train" / "defective").iterdir())
    other = next((tmp_path / "data" / "train" / "functional").iterdir())
    prepare(open_source(tmp_path / "data"), tmp_path / "out", SMALL)
    prepare(open_source(tmp_path / "data"), tmp_path / "out", SMALL)
    (tmp_path / "begun").mkdir()
    source = open_source(tmp_path / "data")
    claim = {"options": asdict(SMALL), "fingerprint": source.fingerprint()}
    claim |= {"encoder": jpeg_library(), "stamp": source.stamp}
    (tmp_path / "begun" / "preparing.json").write_text(json.dumps(claim))
    shutil.copy(other, file)
    with pytest.raises(DataError, match="were changed or moved since"):
        prepare(open_source(tmp_path / "data"), tmp_path / "out", SMALL)
    with pytest.raises(DataError, match="were changed or moved since their preparation"):
        prepare(open_source(tmp_path / "data"), tmp_path / "begun", SMALL)
    del claim["stamp"]  # as a version before wrote it
    (tmp_path / "begun" / "preparing.json").write_text(json.dumps(claim))
    prepare(open_source(tmp_path / "data"), tmp_path / "begun", SMALL)


def test_the_stamp_of_a_tar_gz_is_that_of_the_file_that_was_named(
    photographs, tmp_path, monkeypatch
):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    shutil.make_archive(str(tmp_path / "cells"), "gztar", photographs)
    first = open_source(tmp_path / "cells.tar.gz").stamp
    shutil.rmtree(tmp_path / "cache")
    assert open_source(tmp_path / "cells.tar.gz").stamp == first


@pytest.fixture
def doubled(photographs, tmp_path) -> Path:
    """Return photographs of which one is twice in its class, one in both classes, one in a test."""
    root = tmp_path / "data"
    shutil.copytree(photographs, root)
    bad, good = (sorted((root / "train" / name).iterdir()) for name in ("defective", "functional"))
    shutil.copy(bad[0], bad[0].with_name("z0.png"))
    Image.open(bad[1]).save(good[0].with_name("z1.tiff"))  # the same pixels in another file
    shutil.copy(good[2], root / "test" / "functional" / "z2.png")
    return root


def test_duplicates_are_counted_by_kind_and_listed(doubled, tmp_path):
    manifest = prepare(open_source(doubled), tmp_path / "out", SMALL)
    assert manifest.counts == {"train": 38, "test": 13}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    groups = [[(c["split"], c["label"]) for c in one["images"]] for one in report["duplicates"]]
    assert sorted(groups) == [
        [("test", 1), ("train", 1)], [("train", 0), ("train", 0)], [("train", 0), ("train", 1)],
    ]  # fmt: skip
    (line, _) = describe_report(tmp_path / "out")
    assert "1 within a class, 1 under several labels, 1 in several splits" in line


def test_duplicates_are_dropped_to_what_a_source_without_them_gives(doubled, tmp_path):
    manifest = prepare(open_source(doubled), tmp_path / "out", SMALL, duplicates="drop")
    assert manifest.counts == {"train": 34, "test": 13}
    with pytest.raises(DataError, match="holds another prepared data set"):
        prepare(open_source(doubled), tmp_path / "out", SMALL)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not report["duplicates"]
    for one in report["dropped"]:
        (doubled / one["image"]).unlink()
    prepare(open_source(doubled), tmp_path / "clean", SMALL)
    dropped, clean = (open_prepared(tmp_path / name) for name in ("out", "clean"))
    for name in ("mean_image", "colour_stdevs", "colour_eigenvectors"):
        assert np.array_equal(getattr(dropped.statistics, name), getattr(clean.statistics, name))
    for name, split in clean.splits.items():
        assert [dropped.splits[name][i] for i in range(len(split))] == [
            split[i] for i in range(len(split))
        ]


def test_a_drop_that_is_killed_goes_on_to_the_same_bytes(doubled, tmp_path, monkeypatch):
    source = open_source(doubled)
    prepare(source, tmp_path / "whole", SMALL, duplicates="drop", workers=1)
    made, killed = [], make_shard

    def stop(task, *more):
        if task.dropped and made:
            raise KeyboardInterrupt
        made.extend([task] * bool(task.dropped))
        return killed(task, *more)

    monkeypatch.setattr("alexnet.data.prepare.make_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "again", SMALL, duplicates="drop", workers=1)
    monkeypatch.undo()
    prepare(source, tmp_path / "again", SMALL, duplicates="drop", workers=1)
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_duplicates_may_be_an_error_and_it_goes_on_with_keep(doubled, tmp_path):
    with pytest.raises(DataError, match=r"6 images in 3 groups.*report.json lists"):
        prepare(open_source(doubled), tmp_path / "out", SMALL, duplicates="error")
    assert prepare(open_source(doubled), tmp_path / "out", SMALL).counts["train"] == 38
    with pytest.raises(DataError, match=r"6 images in 3 groups.*report.json lists"):  # finished
        prepare(open_source(doubled), tmp_path / "out", SMALL, duplicates="error")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_finished_set_that_lost_a_part_is_not_taken_for_whole(photographs, tmp_path, split, lost):
    source = open_source(photographs)
    prepare(source, tmp_path / "out", SMALL)
    shard = tmp_path / "out" / f"{split}-00000.arrow"
    whole = shard.read_bytes()
    shard.unlink() if lost else shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{split}-00000.arrow' is not there any more, or was cut"):
        prepare(source, tmp_path / "out", SMALL)
    shard.write_bytes(whole)
    assert prepare(source, tmp_path / "out", SMALL).counts == {"train": 36, "test": 12}


def test_near_duplicates_are_counted_on_request(doubled, tmp_path):
    pytest.importorskip("imagehash")
    first = next((doubled / "train" / "functional").iterdir())
    image = Image.open(first).convert("L")
    image.resize((280, 280)).save(doubled / "test" / "functional" / "near.jpg", quality=60)
    prepare(open_source(doubled), tmp_path / "out", Options(size=64))
    groups = find_near_duplicates(open_prepared(tmp_path / "out"))
    pairs = {frozenset(copy.image for copy in group) for group in groups}
    name = first.relative_to(doubled).as_posix()
    assert any({name, "test/functional/near.jpg"} <= pair for pair in pairs)


def test_what_is_not_taken_is_reported_by_kind(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    folder = tmp_path / "data" / "train" / "defective"
    for name in ("a.txt", "b.txt", "IMG_1", ".DS_Store"):
        (folder / name).write_bytes(b"")
    frames = [Image.new("RGB", (9, 9), (0, 99, 80 * n)) for n in range(3)]
    for name in ("many.tiff", "moving.webp", "moving.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
        frames.append(frames.pop(0))
    prepare(open_source(tmp_path / "data"), tmp_path / "out", Options(size=16))
    repaired, passed_over, _ = describe_report(tmp_path / "out")
    assert repaired == "Repaired: the first frame of an animation: 3 images."
    assert (
        passed_over == "Passed over: ends in .txt: 2 files; has no ending: 1 file; hidden: 1 file."
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["files"] for one in report["passed_over"]] == [2, 1, 1]
    assert report["passed_over"][0]["first"] == [f"train/defective/{n}.txt" for n in "ab"]
