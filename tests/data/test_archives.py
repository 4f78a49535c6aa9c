"""Folders, tars and zips are read in place, whole and broken."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from alexnet.data.prepare import Options, prepare
from alexnet.data.shards import open_prepared
from alexnet.data.sources import open_source
from alexnet.errors import DataError

from .archives import content, files_of, tar_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["zip", "stored zip", "tar", "tar.gz", "tgz"])
def test_an_archive_is_read_like_the_folder_it_holds(photographs, tmp_path, kind):
    files = {f"cells-main/{name}": data for name, data in files_of(photographs).items()}
    files["cells-main/README.md"] = b"about"
    archive = tmp_path / f"cells.{kind.split()[-1]}"
    if "zip" in kind:
        method = zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(archive, "w", method) as out:
            for name, data in files.items():
                out.writestr(name, data)
    else:
        data = tar_of(files)
        archive.write_bytes(data if kind == "tar" else gzip.compress(data))
    source, folder = open_source(archive), open_source(photographs)
    assert (source.name, source.classes) == ("cells", folder.classes)
    assert content(source) == content(folder)


def test_a_damaged_zip_or_gzip_is_a_sentence(photographs, tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as out:
        out.writestr("a/b.png", b"x" * 1000)
    os.truncate(tmp_path / "cells.zip", 500)
    with pytest.raises(DataError, match=r"cells.zip' is no whole zip"):
        open_source(tmp_path / "cells.zip")
    (tmp_path / "cells.tar.gz").write_bytes(gzip.compress(os.urandom(9000))[:4000])
    with pytest.raises(DataError, match="damaged or cut short"):
        open_source(tmp_path / "cells.tar.gz")
    (tmp_path / "cells.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match="no uncompressed tar"):
        open_source(tmp_path / "cells.tar")
    (tmp_path / "cells.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match="neither a folder nor a tar"):
        open_source(tmp_path / "cells.rar")


def test_a_zipped_image_that_unpacks_without_end_is_left_out(photographs, tmp_path):
    picture = next(photographs.rglob("*.png")).read_bytes()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for number in range(4):
            out.writestr(f"{'ab'[number % 2]}/{number}.png", picture)
        out.writestr("a/bomb.png", bytes(300 << 20))
    assert (tmp_path / "bomb.zip").stat().st_size < 2 << 20
    manifest = prepare(open_source(tmp_path / "bomb.zip"), tmp_path / "out", Options(size=16))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["image"] for one in report["skipped"]] == ["a/bomb.png"]
    assert sum(manifest.counts.values()) == 4


def test_names_in_a_tar_reach_nothing_outside_it(photographs, tmp_path):
    """Absolute paths, ``..``, links and bytes that are no UTF-8: names, and nothing more."""
    picture = next(photographs.rglob("*.png")).read_bytes()
    tar_file = tmp_path / "names.tar"
    odd = [
        "/train/a/1.png",
        "../../train/a/2.png",
        "train/b/\udcff\udcfe.png",
        "train/b/4 ' \".png",
    ]
    tar_file.write_bytes(tar_of(dict.fromkeys([*odd, "test/a/5.png", "test/b/6.png"], picture)))
    with tarfile.open(tar_file, "a") as tar:
        link = tarfile.TarInfo("train/a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = set(tmp_path.parent.rglob("*"))
    prepare(open_source(tar_file), tmp_path / "out", Options(size=16))
    data = open_prepared(tmp_path / "out")
    train = data.splits["train"]
    assert [train[i].path for i in range(len(train))] == [
        "train/a/1.png", "train/a/2.png", "train/b/4 ' \".png", "train/b/\\udcff\\udcfe.png",
    ]  # fmt: skip
    for path in set(tmp_path.parent.rglob("*")) - before:
        assert (tmp_path / "out") in (path, *path.parents)


def test_file_names_that_are_no_text_are_prepared(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    folder = tmp_path / "data" / "train" / "defective"
    first = next(folder.iterdir())
    first.rename(folder / os.fsdecode(b"caf\xe9.png"))
    manifest = prepare(open_source(tmp_path / "data"), tmp_path / "out", Options(size=16))
    assert manifest.counts == {"train": 36, "test": 12}
    paths = {open_prepared(tmp_path / "out").splits["train"][i].path for i in range(36)}
    assert "train/defective/caf\\udce9.png" in paths


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_hundred_thousand_classes_are_listed(tmp_path, count):
    """Scenario 18; as a tar, since a folder of so many folders is slow to make.

    The time is that of Python's tarfile, a tenth of a millisecond a member.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            tar.addfile(tarfile.TarInfo(f"class{number:06}/a.jpg"))
    (tmp_path / "many.tar").write_bytes(out.getvalue())
    assert len(open_source(tmp_path / "many.tar").classes) == count


def same(archive, folder):
    """Assert that an archive and the folder that it was made of are one data set."""
    ours, theirs = open_source(archive), open_source(folder)
    assert ours.fingerprint() == theirs.fingerprint()
    assert content(ours) == content(theirs)


def test_links_and_holes_in_a_tar_are_those_of_its_folder(photographs, tmp_path):
    """Hard links, links to files and folders, around and outside; members with holes."""
    root = tmp_path / "cells"
    shutil.copytree(photographs, root)
    first = sorted((root / "train" / "defective").iterdir())[0]
    os.link(first, first.with_name("again.png"))
    (root / "train" / "functional" / "link.png").symlink_to(f"../defective/{first.name}")
    (root / "train" / "functional" / "outside.png").symlink_to("/etc/passwd")
    (root / "val").symlink_to("test")
    (root / "train" / "defective" / "up").symlink_to("..")
    with first.open("rb+") as file:
        file.seek(1 << 20, 2)
        file.write(b"behind a hole")
    with tarfile.open(tmp_path / "cells.tar", "w") as tar:
        tar.add(root, "cells")
    (root / "train" / "functional" / "outside.png").unlink()  # what a folder may reach, a tar not
    same(tmp_path / "cells.tar", root)
    assert set(open_source(root).splits) == {"train", "val", "test"}
    source = open_source(tmp_path / "cells.tar")
    assert source.passed_over["link out of the archive"] == ["cells/train/functional/outside.png"]
    assert source.passed_over["link that leads around"] == ["cells/train/defective/up"]
    for form in ("gnu", "posix"):
        done = subprocess.run(
            ["tar", "--sparse", f"--format={form}", "-cf", tmp_path / f"{form}.tar", "."],
            cwd=root, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        same(tmp_path / f"{form}.tar", root)


@pytest.mark.parametrize("kind", ["dos", "unix", "unmarked", "linked"])
def test_zips_of_other_systems_are_read_like_the_folder(photographs, tmp_path, kind):
    root = tmp_path / "cells"
    shutil.copytree(photographs, root)
    (root / "train" / "defective").rename(root / "train" / "schwächer")
    (root / "test" / "defective").rename(root / "test" / "schwächer")
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as out:
        for name, data in files_of(root).items():
            member = zipfile.ZipInfo("x")
            member.filename = f"cells\\{name.replace('/', chr(92))}" if kind == "dos" else name
            member.create_system = 0 if kind == "dos" else 3
            out.writestr(member, data)
        if kind == "linked":
            link = zipfile.ZipInfo("val")
            link.external_attr = 0o120777 << 16
            out.writestr(link, "test")
            (root / "val").symlink_to("test")
    if kind == "unmarked":  # as macOS writes UTF-8
        data = bytearray((tmp_path / "cells.zip").read_bytes())
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            start = -1
            while (start := data.find(mark, start + 1)) >= 0:
                data[start + at + 1] &= ~8 & 255
        (tmp_path / "cells.zip").write_bytes(data)
    same(tmp_path / "cells.zip", root)


def test_names_in_another_encoding_are_read_as_the_standard_says_and_said(photographs, tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as out:
        for name, data in files_of(photographs / "train").items():
            out.writestr(name.replace("defective", "XXXX"), data)
    data = (tmp_path / "cells.zip").read_bytes()
    for text, coding, shown in (("汽车", "gbk", "╞√│╡"), ("Füße", "cp437", "Füße")):
        coded = text.encode(coding)
        assert len(coded) == 4
        (tmp_path / "cells.zip").write_bytes(data.replace(b"XXXX", coded))
        source = open_source(tmp_path / "cells.zip")
        assert set(source.classes) == {"functional", shown}
        assert "are read as code page 437" in source.notes[0]


def test_what_holds_no_images_is_named_for_what_it_is(photographs, tmp_path):
    inner = tar_of({"cifar-10-batches-bin/batches.meta.txt": b"a\nb\n"})
    with zipfile.ZipFile(tmp_path / "cifar.zip", "w") as out:
        out.writestr("cifar-10-binary.tar.gz", gzip.compress(inner))
    with pytest.raises(
        DataError, match=r"Name the archive that it holds, 'cifar-10-binary.tar.gz'"
    ):
        open_source(tmp_path / "cifar.zip")
    with zipfile.ZipFile(tmp_path / "cifar.zip", "w") as out:
        for name in ("batches.meta.txt", "test_batch.bin"):
            out.writestr(name, b"a\nb\n")
    with pytest.raises(DataError, match=r"is CIFAR in a zip. Unpack it"):
        open_source(tmp_path / "cifar.zip")
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as out:
        out.writestr("a/1.png", b"x")
        out.writestr("b/1.png", b"x")
    data = (tmp_path / "locked.zip").read_bytes()
    data = data.replace(b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1")
    data = data.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"encrypted: 2 files. Unpack it with its password"):
        open_source(tmp_path / "locked.zip")
    with pytest.raises(DataError, match=r"What it holds: ends in .zip: 2 files"):
        open_source(tmp_path)


def test_an_image_of_20_gb_is_left_out_before_it_is_read(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    with (tmp_path / "data" / "train" / "defective" / "9.png").open("wb") as file:
        file.truncate(20 << 30)
    manifest = prepare(open_source(tmp_path / "data"), tmp_path / "out", Options(size=16))
    assert (manifest.counts["train"], manifest.skipped) == (36, 1)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"][0]["reason"] == "It has 21,474,836,480 bytes, more than any image."
