"""Look-alikes of ImageNet as image-net.org and others give it out, built from real photographs."""

import gzip
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from alexnet.data.imagenet import describe_classes, load_synsets
from alexnet.data.prepare import Options, prepare
from alexnet.data.shards import open_prepared, verify
from alexnet.data.sources import open_source
from alexnet.errors import DataError

from .archives import content, files_of, tar_of

# In the order of their ILSVRC ids, which is not that of their wnids; the third has children and
# so no images, and the fourth is a class that the look-alike has no images of.
SYNSETS = [("n02012849", 0), ("n01440764", 0), ("n00001740", 2), ("n03126707", 0)]
TRUTH = [1, 2, 2, 1, 2, 1]


def meta(year: int = 2012) -> bytes:
    """Return a real ``meta.mat``."""
    fields = [
        (f"ILSVRC{year}_ID", "i4"), ("WNID", "O"), ("words", "O"), ("gloss", "O"),
        ("num_children", "i4"), ("children", "O"), ("wordnet_height", "i4"),
        ("num_train_images", "i4"),
    ]  # fmt: skip
    rows = [
        (number, wnid, "crane", "a bird", children, np.array([1.0]), 0, 12)
        for number, (wnid, children) in enumerate(SYNSETS, start=1)
    ]
    out = io.BytesIO()
    savemat(out, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    return out.getvalue()


@pytest.fixture(scope="module")
def pictures(photographs) -> list[bytes]:
    return [file.read_bytes() for file in sorted(photographs.rglob("*.png"))]


def look_alike(root: Path, pictures: list[bytes], year: int = 2012) -> None:
    """Write the files of ILSVRC-2012, or of 2010, with 24 training and 6 validation images."""
    classes = ("n01440764", "n02012849")
    train = {
        f"{wnid}.tar": tar_of(
            {f"{wnid}_{n}.JPEG": pictures[12 * label + n] for n in reversed(range(12))}
        )
        for label, wnid in enumerate(classes)
    }
    form, kit = ("img", "devkit_t12") if year == 2012 else ("images", "devkit-1.0")
    folder = "" if year == 2012 else "val/"
    held = {f"{folder}ILSVRC{year}_val_{n + 1:08}.JPEG": pictures[24 + n] for n in range(6)}
    (root / f"ILSVRC{year}_{form}_train.tar").write_bytes(tar_of(train))
    (root / f"ILSVRC{year}_{form}_val.tar").write_bytes(tar_of(held))
    inside = {
        f"ILSVRC{year}_{kit}/data/meta.mat": meta(year),
        f"ILSVRC{year}_{kit}/data/ILSVRC{year}_validation_ground_truth.txt": "".join(
            f"{truth}\n" for truth in TRUTH
        ).encode(),
    }
    (root / f"ILSVRC{year}_{kit}.tar.gz").write_bytes(gzip.compress(tar_of(inside)))


@pytest.fixture
def ilsvrc(tmp_path, pictures) -> Path:
    root = tmp_path / "imagenet"
    root.mkdir()
    look_alike(root, pictures)
    return root


def held_out(source) -> list[tuple[str, bytes]]:
    return [(source.classes[item.label], item.read()) for item in source.splits["val"]]


def test_images_and_labels_are_those_of_the_tars_and_the_ground_truth(ilsvrc, pictures):
    source = open_source(ilsvrc)
    assert source.classes == ("n01440764", "n02012849")  # sorted, as Caffe and torchvision
    train = [(source.classes[item.label], item.read()) for item in source.splits["train"]]
    assert sorted(train) == sorted(
        (wnid, pictures[12 * label + n]) for label, wnid in enumerate(source.classes)
        for n in range(12)
    )  # fmt: skip
    wnids = [SYNSETS[truth - 1][0] for truth in TRUTH]
    assert held_out(source) == list(zip(wnids, pictures[24:30], strict=True))
    assert any("2 of 3 classes" in note for note in source.notes)


def test_a_devkit_that_a_browser_unpacked_is_read(ilsvrc):
    """Safari undoes the gzip of what it downloads; who opens that then has a folder."""
    packed, before = ilsvrc / "ILSVRC2012_devkit_t12.tar.gz", open_source(ilsvrc).fingerprint()
    unpacked = packed.with_suffix("")
    unpacked.write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert open_source(ilsvrc).fingerprint() == before
    shutil.unpack_archive(unpacked, ilsvrc, filter="data")
    unpacked.unlink()
    assert open_source(ilsvrc).fingerprint() == before


def test_the_devkits_order_is_cuda_convnets(ilsvrc):
    by_kit, by_wnid = open_source(ilsvrc, class_order="devkit"), open_source(ilsvrc)
    assert by_kit.classes == ("n02012849", "n01440764")
    assert held_out(by_kit) == held_out(by_wnid)


def test_2010_is_read_with_its_names_its_test_labels_and_its_patches(tmp_path, pictures):
    look_alike(tmp_path, pictures, 2010)
    test = {f"test/ILSVRC2010_test_{n + 1:08}.JPEG": pictures[30 + n] for n in range(3)}
    (tmp_path / "ILSVRC2010_images_test.tar").write_bytes(tar_of(test))
    (tmp_path / "ILSVRC2010_test_ground_truth.txt").write_text("2\n1\n1\n")
    patch = {"patch/train/n01440764_5.JPEG": pictures[40]}
    (tmp_path / "patch_images.tar").write_bytes(tar_of(patch))
    source = open_source(tmp_path / "ILSVRC2010_images_train.tar")  # the file names its folder
    test_items = [(source.classes[i.label], i.read()) for i in source.splits["test"]]
    wnids = ("n01440764", "n02012849", "n02012849")
    assert test_items == list(zip(wnids, pictures[30:33], strict=True))
    patched = next(i for i in source.splits["train"] if i.path == "n01440764_5.JPEG")
    assert patched.read() == pictures[40]


def test_prepared_verified_trained_and_evaluated(ilsvrc, tmp_path, command):
    done = command("prepare", ilsvrc, tmp_path / "data", "--size", "32", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "classes: tench, crane" in done.stdout
    assert "Repaired" in done.stdout  # PNG files named .JPEG
    assert verify(tmp_path / "data") == []
    assert command("prepare", "--verify", tmp_path / "data").stdout.endswith("all is well.\n")
    run = tmp_path / "run"
    done = command(
        "train", tmp_path / "data", "--network", "cifar_quick", "--epochs", "1", "--batch-size",
        "8", "--no-compile", "--out", run, "--set", "crop_area=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(command("evaluate", run, "--json").stdout)
    assert (result["images"], result["classes"]) == (6, ["n01440764", "n02012849"])
    data = open_prepared(tmp_path / "data")
    val = data.splits["val"]
    wnids = [SYNSETS[truth - 1][0] for truth in TRUTH]
    assert [data.classes[val.label(i)] for i in range(len(val))] == wnids


def test_a_train_tar_that_ends_early_gives_what_it_has_and_says_so(ilsvrc, tmp_path):
    tar = ilsvrc / "ILSVRC2012_img_train.tar"
    whole = open_source(ilsvrc).splits["train"]
    os.truncate(tar, int(whole.slices[20, 1]) + 100)  # within an image of the second class
    source = open_source(ilsvrc)
    assert any("ends early" in note for note in source.notes)
    manifest = prepare(source, tmp_path / "out", Options(size=16))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (lost,) = report["skipped"]
    assert "ends before this image does" in lost["reason"]
    before = sum(place[1] < whole.slices[20, 1] for place in whole.slices)
    assert manifest.counts["train"] == before


def test_files_that_are_missing_or_contradict_each_other_are_named(ilsvrc):
    kit = ilsvrc / "ILSVRC2012_devkit_t12.tar.gz"
    data = kit.read_bytes()
    kit.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"devkit_t12.tar.gz' is damaged"):
        open_source(ilsvrc)
    kit.write_bytes(gzip.compress(tar_of({"data/meta.mat": meta()})))
    with pytest.raises(DataError, match=r"lacks meta.mat or the validation ground truth"):
        open_source(ilsvrc)
    truth = {"data/ILSVRC2012_validation_ground_truth.txt": b"1\n"}
    kit.write_bytes(gzip.compress(tar_of(truth | {"data/meta.mat": b"MATLAB 5.0" + bytes(200)})))
    with pytest.raises(DataError, match="cannot be read"):
        open_source(ilsvrc)
    kit.unlink()
    with pytest.raises(DataError, match="and not its devkit"):
        open_source(ilsvrc)
    shutil.copy(ilsvrc / "ILSVRC2012_img_val.tar", ilsvrc / "ILSVRC2010_images_val.tar")
    with pytest.raises(DataError, match="files of 2010 and 2012"):
        open_source(ilsvrc)


def test_the_order_of_a_devkit_that_is_not_there_is_refused(photographs):
    with pytest.raises(DataError, match="no devkit"):
        open_source(photographs, class_order="devkit")


def test_tiny_imagenet(photographs, tmp_path):
    files: dict[str, bytes] = {"wnids.txt": b"n02012849\nn01440764\n"}
    lines = []
    wnids = {"defective": "n02012849", "functional": "n01440764"}
    for name, data in files_of(photographs).items():
        split, label, file = name.split("/")
        if split == "train":
            files[f"train/{wnids[label]}/images/{file}"] = data
        else:
            files[f"val/images/{file}"] = data
            lines.append(f"{file}\t{wnids[label]}\t0\t0\t62\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.png"] = b"unlabelled"
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(f"tiny-imagenet-200/{name}", data)
    source = open_source(tmp_path / "tiny-imagenet-200.zip")
    assert source.classes == ("n01440764", "n02012849")
    folder, back = open_source(photographs), {wnid: name for name, wnid in wnids.items()}
    theirs = content(folder)
    for split, same in (("train", "train"), ("val", "test")):
        ours = [(back[wnid], data) for wnid, data in content(source)[split]]
        assert sorted(ours) == sorted(theirs[same])


def test_kaggles_layout(photographs, tmp_path):
    rows = ["ImageId,PredictionString"]
    for name, data in files_of(photographs).items():
        split, label, file = name.split("/")
        wnid = {"defective": "n02012849", "functional": "n01440764"}[label]
        place = f"train/{wnid}/{file}" if split == "train" else f"val/{file}"
        target = tmp_path / "ILSVRC/Data/CLS-LOC" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if split == "test":
            rows.append(f"{Path(file).stem},{wnid} 1 2 3 4 n01440764 5 6 7 8")
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    source = open_source(tmp_path)
    assert source.classes == ("n01440764", "n02012849")
    names = {"n02012849": "defective", "n01440764": "functional"}
    theirs = content(open_source(photographs))
    ours = {k: sorted((names[c], d) for c, d in v) for k, v in content(source).items()}
    assert ours == {"train": sorted(theirs["train"]), "val": sorted(theirs["test"])}


def test_tiny_imagenet_without_an_image_is_a_sentence(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01440764\n")
    with pytest.raises(DataError, match="No images were found"):
        open_source(tmp_path)


def test_readable_names_are_unique_and_the_thousand_are_there():
    wnids = [wnid for wnid in load_synsets() if wnid in ("n02012849", "n03126707", "n03710637")]
    assert describe_classes(wnids) == ("crane (n02012849)", "crane (n03126707)", "maillot")
    assert len(load_synsets()) == 21_842
    assert load_synsets()["n01440764"] == "tench, Tinca tinca"
    assert describe_classes(["dress", "n99999999"]) == ("dress", "n99999999")
