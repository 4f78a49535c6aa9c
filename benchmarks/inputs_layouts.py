"""Data sets as people bring them: what `alexnet prepare` makes of each, a line a case.

``PHOTOS=clothing/train PYTHONPATH=src python benchmarks/inputs_layouts.py [WORD]``, with class
folders of photographs.
Run with the source of another version in ``PYTHONPATH``, the same inputs show what that one did.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alexnet.cli.main import run as run_command

PHOTOS = sorted(Path(os.environ["PHOTOS"]).glob("*/*.jpg"))
MEMORY = 8 << 30
Build = Callable[[Path], Path | str | None]
CASES: dict[str, Build] = {}


def case(name: str) -> Callable[[Build], Build]:
    def note(build: Build) -> Build:
        CASES[name] = build
        return build

    return note


def photo(number: int) -> bytes:
    return PHOTOS[number % len(PHOTOS)].read_bytes()


def put(root: Path, folders: str, each: int = 4, ending: str = "jpg", first: int = 0) -> Path:
    """Write `each` photographs into each of some folders, no two the same."""
    for at, folder in enumerate(folders.split()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            data = photo(first + 37 * at + number)
            (root / folder / f"{number}.{ending}").write_bytes(data)
    return root


def names(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def pack(files: dict[str, bytes], target: Path, method: int = zipfile.ZIP_STORED) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", method) as out:
            for name, data in files.items():
                out.writestr(name, data)
    else:
        with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return target


def files_of(root: Path, top: str = "") -> dict[str, bytes]:
    return {f"{top}{name}": (root / name).read_bytes() for name in names(root)}


def layout(folders: str, each: int = 4) -> Build:
    return lambda root: put(root / "data", folders, each)


def both(*splits: str) -> str:
    return " ".join(f"{split}/{name}" for split in splits for name in ("bus", "car"))


for title, folders in {
    "L1 Training/CLASS, Testing/CLASS": both("Training", "Testing"),
    "L1 Train/CLASS, Test/CLASS": both("Train", "Test"),
    "L1 train/train/CLASS, test/test/CLASS": both("train/train", "test/test"),
    "L1 seg_train/seg_train/CLASS, seg_test/…": both("seg_train/seg_train", "seg_test/seg_test"),
    "L1 fold1/CLASS, fold2/CLASS": both("fold1", "fold2"),
    "L1 neighbour: train/CLASS, test/CLASS": both("train", "test"),
    "L2 train, dev, testing": both("train", "dev", "testing"),
    "L2 train, Val": both("train", "Val"),
    "L2 train, val, extra": both("train", "val", "extra"),
    "L3 classes bus, car, train": "bus car train",
    "L3 classes test, bus": "test bus",
    "L4 neighbour: CLASS/images": "bus/images car/images",
    "CLASS/train, CLASS/test": "bus/train bus/test car/train car/test",
    "nested: vehicles/{bus,car}, clothes/{hat,shirt}": "a/bus a/car clothes/hat clothes/shirt",
    "nested: one folder more, photos/{bus,car}": both("photos"),
}.items():
    CASES[title] = layout(folders)


@case("L4 a zip of macOS' Finder")
def _(root: Path) -> Path:
    files = files_of(put(root / "in", "bus car"), "photos/")
    files |= {
        f"__MACOSX/{'/'.join((*n.split('/')[:-1], '._' + n.split('/')[-1]))}": b"\0\5\x16\7"
        for n in list(files)
    }
    return pack(files | {"__MACOSX/._photos": b"\0\5\x16\7"}, root / "photos.zip")


@case("L4 a tar of macOS, ._photos first")
def _(root: Path) -> Path:
    files = files_of(put(root / "in", "bus car"), "photos/")
    return pack(
        {"./._photos": b"\0\5\x16\7"} | {f"./{n}": d for n, d in files.items()}, root / "photos.tar"
    )


@case("L4 a LICENSE beside the one top folder")
def _(root: Path) -> Path:
    return pack(
        {"LICENSE": b"MIT"} | files_of(put(root / "in", "bus car"), "photos/"), root / "photos.zip"
    )


@case("L5 a zip with backslashes, made on DOS")
def _(root: Path) -> Path:
    with zipfile.ZipFile(root / "photos.zip", "w") as out:
        for name, data in files_of(put(root / "in", "bus car"), "photos/").items():
            member = zipfile.ZipInfo(name.replace("/", "\\"))
            member.filename = name.replace("/", "\\")
            member.create_system = 0
            out.writestr(member, data)
    return root / "photos.zip"


@case("L6 a tar with hard links")
def _(root: Path) -> Path:
    put(root / "in", "bus car")
    for name in ("bus", "car"):
        for number in range(4):
            os.link(root / "in" / name / f"{number}.jpg", root / "in" / name / f"z{number}.jpg")
    with tarfile.open(root / "photos.tar", "w") as tar:
        tar.add(root / "in", "photos")
    return root / "photos.tar"


@case("L6 a tar with a sparse member")
def _(root: Path) -> Path | None:
    put(root / "in", "bus car")
    for name in ("bus", "car"):
        with (root / "in" / name / "0.jpg").open("rb+") as file:
            file.seek(0, 2)
            end = file.tell()
            file.truncate(end + (1 << 20))  # a hole behind the image
            file.seek(end + (1 << 20))
            file.write(photo(5))
    os.system(f"cd {root} && tar --sparse -cf photos.tar in")
    return root / "photos.tar"


@case("L6 all class folders are links")
def _(root: Path) -> Path:
    put(root / "away", "bus car")
    (root / "data").mkdir()
    for name in ("bus", "car"):
        (root / "data" / name).symlink_to(root / "away" / name)
    return root / "data"


@case("L6 one class folder of three is a link, and one a cycle")
def _(root: Path) -> Path:
    put(root / "away", "hat")
    put(root / "data", "bus car")
    (root / "data" / "hat").symlink_to(root / "away" / "hat")
    (root / "data" / "car" / "again").symlink_to(root / "data")
    return root / "data"


@case("L6 the same as a tar: links within")
def _(root: Path) -> Path:
    put(root / "in", "bus car real/hat")
    (root / "in" / "hat").symlink_to("real/hat")
    (root / "in" / "car" / "9.jpg").symlink_to("../bus/0.jpg")
    with tarfile.open(root / "photos.tar", "w") as tar:
        tar.add(root / "in", "photos")
    return root / "photos.tar"


def shards(root: Path, members: list[tuple[str, bytes]]) -> Path:
    (root / "data").mkdir()
    with tarfile.open(root / "data" / "train-0000.tar", "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return root / "data"


@case("L7 WebDataset: every key twice")
def _(root: Path) -> Path:
    return shards(
        root,
        [
            m
            for n in range(8)
            for m in ((f"{n % 4}.jpg", photo(n)), (f"{n % 4}.cls", str(n % 2).encode()))
        ],
    )


@case("L7 WebDataset: jpg and json")
def _(root: Path) -> Path:
    return shards(
        root, [m for n in range(8) for m in ((f"{n}.jpg", photo(n)), (f"{n}.json", b"{}"))]
    )


@case("L7 neighbour: all images, then all labels")
def _(root: Path) -> Path:
    members = [(f"{n}.jpg", photo(n)) for n in range(8)]
    return shards(root, members + [(f"{n}.cls", str(n % 2).encode()) for n in range(8)])


@case("L7 WebDataset: img2dataset's 00000.tar")
def _(root: Path) -> Path:
    data = shards(root, [m for n in range(8) for m in ((f"{n}.jpg", photo(n)), (f"{n}.cls", b"0"))])
    (data / "train-0000.tar").rename(data / "00000.tar")
    return data


@case("L8 12 of 16 are .HEIC")
def _(root: Path) -> Path:
    put(root / "data", "bus car", 2)
    try:
        import pillow_heif
    except ImportError:
        return put(root / "data", "bus car", 6, "HEIC", 20)
    for folder in ("bus", "car"):
        for number in range(6):
            image = Image.open(io.BytesIO(photo(100 + number + 50 * (folder == "car")))).convert(
                "RGB"
            )
            pillow_heif.from_pillow(image).save(str(root / "data" / folder / f"{number}.HEIC"))
    return root / "data"


@case("L8 files without an ending")
def _(root: Path) -> Path:
    put(root / "data", "bus car", 2)
    for folder in ("bus", "car"):
        for number in range(6):
            (root / "data" / folder / f"IMG{number}").write_bytes(photo(number))
    return root / "data"


@case("L9 flat train/cat.0.jpg, test1/1.jpg")
def _(root: Path) -> Path:
    for number in range(12):
        put(root / "data", "train test1", 0)
        (root / "data" / "train" / f"{('cat', 'dog')[number % 2]}.{number}.jpg").write_bytes(
            photo(number)
        )
        (root / "data" / "test1" / f"{number}.jpg").write_bytes(photo(50 + number))
    return root / "data"


@case("L9 neighbour: a flat folder of IMG_0001.jpg")
def _(root: Path) -> Path:
    put(root / "data", "train", 0)
    for number in range(8):
        (root / "data" / "train" / f"{('IMG', 'DSC')[number % 2]}_{number:04}.jpg").write_bytes(
            photo(number)
        )
    return root / "data"


@case("labels.csv beside a flat folder")
def _(root: Path) -> Path:
    put(root / "data", "images", 8)
    rows = "".join(f"images/{n}.jpg,{('bus', 'car')[n % 2]}\n" for n in range(7))
    (root / "data" / "labels.csv").write_text("file,label\n" + rows + "images/99.jpg,bus\n")
    return root / "data"


@case("labels.csv of Kaggle: id;label, ids without an ending")
def _(root: Path) -> Path:
    put(root / "data", "train_images", 8)
    rows = "".join(f"{n};{('bus', 'car')[n % 2]}\n" for n in range(8))
    (root / "data" / "labels.csv").write_text("\ufeffimage_id;label\n" + rows)
    return root / "data"


def table(
    root: Path,
    where: str,
    image: str,
    label: str,
    labels: list[object],
    declared: tuple[str, ...] = (),
    data: bool = True,
) -> Path:
    rows = [
        {image: {"bytes": photo(n) if data else None, "path": f"{n}.jpg"}, label: value}
        for n, value in enumerate(labels)
    ]
    made = pa.Table.from_pylist(rows)
    if declared:
        about = {"info": {"features": {label: {"names": list(declared)}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(about)})
    (root / "data" / where).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, root / "data" / where)
    return root / "data"


HALF = [0, 1] * 4
for title, given in {
    "L9 Parquet: img, label": ("train.parquet", "img", "label", HALF),
    "L9 Parquet: image, labels": ("train.parquet", "image", "labels", HALF),
    "L9 Parquet: labels are text": ("train.parquet", "image", "label", ["bus", "car"] * 4),
    "L9 Parquet: one label is null": ("train.parquet", "image", "label", [*HALF, None]),
    "L9 Parquet below plain_text/": ("plain_text/train-00000.parquet", "image", "label", HALF),
    "L9 Parquet: default/train/0000": ("default/train/0000.parquet", "image", "label", HALF),
    "L9 Parquet: a class without images": (
        "train.parquet",
        "image",
        "label",
        HALF,
        ("a", "b", "c"),
    ),
    "L9 Parquet: paths without bytes": ("train.parquet", "image", "label", HALF, (), False),
}.items():
    CASES[title] = lambda root, given=given: table(root, *given)  # type: ignore[misc]


@case("L10 class names NFD in train, NFC in val")
def _(root: Path) -> Path:
    return put(root / "data", "train/cafe\u0301 train/bus val/caf\u00e9 val/bus")


@case("L10 a class folder of Latin-1 bytes, and a file")
def _(root: Path) -> Path:
    put(root / "data", "bus")
    folder = root / "data" / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for number in range(4):
        (folder / os.fsdecode(b"\xe9%d.jpg" % number)).write_bytes(photo(number))
    return root / "data"


@case("L10 a zip with names in GBK")
def _(root: Path) -> Path:
    with zipfile.ZipFile(root / "photos.zip", "w") as out:
        for name, data in files_of(put(root / "in", "bus car")).items():
            out.writestr(name.replace("bus", "XXXX"), data)
    data = (root / "photos.zip").read_bytes().replace(b"XXXX", "汽车".encode("gbk"))
    (root / "photos.zip").write_bytes(data)
    return root / "photos.zip"


@case("L12 a zip of CIFAR's archive")
def _(root: Path) -> Path:
    cifar = pack(
        {"cifar-10-batches-bin/batches.meta.txt": b"a\nb\n"}, root / "cifar-10-binary.tar.gz"
    )
    return pack({cifar.name: cifar.read_bytes()}, root / "cifar.zip")


@case("L12 an encrypted zip")
def _(root: Path) -> Path:
    path = pack(files_of(put(root / "in", "bus car")), root / "photos.zip")
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + at] |= 1
    path.write_bytes(data)
    return path


@case("L12 a folder that holds a zip")
def _(root: Path) -> Path:
    (root / "data").mkdir()
    pack(files_of(put(root / "in", "bus car")), root / "data" / "photos.zip")
    return root / "data"


KILLED = """
import os, sys
from alexnet.data import prepare
from alexnet.data.sources import open_source
prepare._finish = lambda *given: os._exit(9)
prepare.prepare(open_source(sys.argv[1]), sys.argv[2], prepare.Options(size=32), workers=1)
"""


@case("L13 killed, photographs replaced, the same command again")
def _(root: Path) -> Path:
    put(root / "data", "bus car")
    subprocess.run([sys.executable, "-c", KILLED, root / "data", root / "out"], check=False)
    return put(root / "data", "bus car", first=200)


@case("L13 a finished folder whose photographs were replaced")
def _(root: Path) -> Path:
    put(root / "data", "bus car")
    alexnet("prepare", root / "data", root / "out", "--size", "32")
    return put(root / "data", "bus car", first=200)


@case("L13 neighbour: nothing changed")
def _(root: Path) -> Path:
    put(root / "data", "bus car")
    alexnet("prepare", root / "data", root / "out", "--size", "32")
    return root / "data"


@case("L14 a sparse 9.jpg of 20 GB")
def _(root: Path) -> Path:
    put(root / "data", "bus car")
    with (root / "data" / "bus" / "9.jpg").open("wb") as file:
        file.truncate(20 << 30)
    return root / "data"


@case("L14 a class folder that may not be read")
def _(root: Path) -> Path:
    put(root / "data", "bus car hat")
    (root / "data" / "hat").chmod(0)
    return root / "data"


@case("L14 a pipe called 9.jpg")
def _(root: Path) -> Path:
    os.mkfifo(put(root / "data", "bus car") / "bus" / "9.jpg")
    return root / "data"


for title, text in {
    "L15 classes.txt: a name twice": "dress\ndress\n",
    "L15 classes.txt: a byte-order mark": "\ufeffdress\nhat\n",
    "L15 classes.txt: 0: name": "0: dress\n1: hat\n",
    "L15 classes.txt: 0, name": "0, dress\n1, hat\n",
    "L15 classes.txt: a Python dict": "{0: 'dress',\n 1: 'hat, felt'}\n",
    "L15 classes.txt: 0 dress": "0 dress\n1 hat\n",
    "L15 neighbour: names that begin with a number": "7 up\n3 in one\n",
}.items():

    def _labelled(root: Path, text: str = text) -> Path:
        data = shards(
            root,
            [
                m
                for n in range(8)
                for m in ((f"{n}.jpg", photo(n)), (f"{n}.cls", str(n % 2).encode()))
            ],
        )
        (data / "classes.txt").write_text(text, encoding="utf-8")
        return data

    CASES[title] = _labelled


@case("duplicates: within a class, under two labels, between splits")
def _(root: Path) -> Path:
    put(root / "data", "train/bus train/car test/bus test/car")
    for first, second in (
        ("train/bus/0", "train/bus/9"),
        ("train/bus/1", "train/car/9"),
        ("train/car/2", "test/car/9"),
    ):
        shutil.copy(root / "data" / f"{first}.jpg", root / "data" / f"{second}.jpg")
    return root / "data"


@case("frames: a TIFF of pages, an animated WebP, an APNG")
def _(root: Path) -> Path:
    put(root / "data", "bus car")
    frames = [Image.open(io.BytesIO(photo(n))).convert("RGB").resize((64, 64)) for n in range(3)]
    for ending in ("tiff", "webp", "png"):
        frames[0].save(
            root / "data" / "bus" / f"many.{ending}", save_all=True, append_images=frames[1:]
        )
    return root / "data"


# Reports of other tools' users, each built as it was told.


@case("report huggingface/datasets 5021: 'photo of a train.jpg' makes a split, others are dropped")
def _(root: Path) -> Path:
    data = put(root / "data", "cat dog", 0)
    for number, text in enumerate(("cat", "dog", "train", "test tubes")):
        for name in ("cat", "dog"):
            file = data / name / f"photo of a {text}.jpg"
            file.write_bytes(photo(2 * number + 50 * len(name) + (name == "dog")))
    return data


@case("report huggingface/datasets 7880: train/ and test/ without classes become the labels")
def _(root: Path) -> Path:
    return put(root / "data", "train test")


@case(
    "report huggingface/datasets 5098: linked photographs take the class of the file's own folder"
)
def _(root: Path) -> Path:
    put(root / "all", "others")
    put(root / "data", "normal", first=90)
    (root / "data" / "abnormal").mkdir()
    for file in sorted((root / "all" / "others").iterdir()):
        (root / "data" / "abnormal" / file.name).symlink_to(file)
    return root / "data"


@case("report pytorch/vision 4925: an empty folder beside the classes is an error")
def _(root: Path) -> Path:
    (put(root / "data", "bus car") / "later").mkdir()
    return root / "data"


@case("report fastai/fastai 1552: a flat test folder becomes a class")
def _(root: Path) -> Path:
    return put(root / "data", "train/ok train/nok test")


@case("report webdataset/webdataset 237: dots in names end the key")
def _(root: Path) -> Path:
    parts = [(f"Track 2.{n}", photo(n), str(n % 2).encode()) for n in range(8)]
    return shards(root, [m for k, i, c in parts for m in ((f"{k}.jpg", i), (f"{k}.cls", c))])


@case("report webdataset/webdataset 407: files of a sample that are not adjacent")
def _(root: Path) -> Path:
    members = [(f"{n}.cls", str(n % 2).encode()) for n in range(8)]
    return shards(root, [*members, *((f"{n}.jpg", photo(n)) for n in reversed(range(8)))])


@case("report replicate/lora-training 9: a zip of IMG_6003.JPG at its root")
def _(root: Path) -> Path:
    return pack({f"IMG_60{n:02}.JPG": photo(n) for n in range(8)}, root / "photos.zip")


@case("report open-mmlab/mmpretrain 507: .ipynb_checkpoints is a class")
def _(root: Path) -> Path:
    return put(root / "data", "a b .ipynb_checkpoints")


@case("report stefyste/RIAWELC 2: every test image is a training image")
def _(root: Path) -> Path:
    put(root / "data", "train/bus train/car")
    shutil.copytree(root / "data" / "train", root / "data" / "test")
    return root / "data"


@case("report huggingface/datasets 7529: a split called custom is dropped")
def _(root: Path) -> Path:
    return put(root / "data", both("train", "test", "custom"))


@case("report modestyachts/ImageNetV2 10: classes 0 to 11 in the order of text")
def _(root: Path) -> Path:
    return put(root / "data", " ".join(map(str, range(12))))


def alexnet(*arguments: object) -> str:
    """Run a command in this process; return its status and what it said."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            status: object = run_command([str(argument) for argument in arguments])
        except BaseException as error:  # what a user would see as a traceback
            last = traceback.format_exception_only(error)[-1].strip()
            return f"TRACEBACK {last[:200]}"
    progress = ("prepared ",)
    lines = [line for line in (said if status else out).getvalue().splitlines() if line.strip()]
    return f"[{status}] " + " | ".join(line for line in lines if not line.startswith(progress))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("20 s")))
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    for title, build in CASES.items():
        if word not in title:
            continue
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            os.environ["ALEXNET_CACHE"] = str(root / "cache")
            source = build(root)
            if source is None:
                continue
            signal.alarm(20)
            text = alexnet("prepare", source, root / "out", "--size", "32", "--workers", "1")
            signal.alarm(0)
            text = text.encode("utf-8", "backslashreplace").decode().replace(f"{root}/", "")
        print(f"- {title}: {text}", flush=True)


if __name__ == "__main__":
    main()
