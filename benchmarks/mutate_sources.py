"""Thousands of damaged archives, class lists, label tables and Parquet files: what becomes of each.

``PYTHONPATH=src python benchmarks/mutate_sources.py [--cases 4000] [--seed 0]``

A case is a data set of small images, packed in one of the forms below, some bytes of which are
changed, cut, doubled or put in. It is opened, and every image that it then lists is read. Allowed
is a source, or a sentence of ours. A process of its own does the work; it is killed after 10 s a
case, and may have `MEMORY` bytes more than it began with.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alexnet.data.prepare import Options, prepare_image
from alexnet.data.sources import open_source
from alexnet.errors import AlexNetError

MEMORY = 1 << 30
SECONDS = 10
ENDINGS = {"tar": "a.tar", "tar.gz": "a.tar.gz", "zip": "a.zip", "stored zip": "a.zip"}
FORMS = (*ENDINGS, "sparse tar", "linked tar", "webdataset", "classes.txt", "labels.csv", "parquet")


def images() -> dict[str, bytes]:
    """Return 8 images of 8 pixels, by their names."""
    found = {}
    for number in range(8):
        out = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 30, 80, 90)).save(out, "PNG")
        found[f"{('bus', 'car')[number % 2]}/{number}.png"] = out.getvalue()
    return found


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def tar_of(files: dict[str, bytes], mode: str = "w", linked: bool = False) -> bytes:
    out = io.BytesIO()
    pax = random.random() < 0.5
    with tarfile.open(
        fileobj=out, mode=mode, format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    ) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            long = "x" * 120 if random.random() < 0.1 else ""
            add(tar, f"photos/{name.replace('.', long + '.', 1)}", data)
        if linked:
            add(tar, "photos/car/9.png", type=tarfile.LNKTYPE, linkname="photos/bus/0.png")
            add(tar, "photos/bus/9.png", type=tarfile.SYMTYPE, linkname="../car/1.png")
            add(tar, "photos/hat", type=tarfile.SYMTYPE, linkname="car")
            add(tar, "photos/car/up", type=tarfile.SYMTYPE, linkname="..")
    return out.getvalue()


def sparse_tar(files: dict[str, bytes]) -> bytes:
    """Return a tar of GNU's sparse members (1.0, in pax headers), a hole behind each image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            listed = f"1\n0\n{len(data)}\n".encode().ljust(512, b"\0")
            about = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": name,
                "GNU.sparse.realsize": str(len(data) + 5000),
            }
            add(tar, name, listed + data, pax_headers=about)
    return out.getvalue()


def build(form: str, root: Path) -> tuple[Path, Path]:
    """Write a data set in a form; return what to open and the file to damage."""
    files = images()
    if form in ENDINGS or form.endswith(" tar"):
        path = root / ENDINGS.get(form, "a.tar")
        if "zip" in form:
            with zipfile.ZipFile(
                path, "w", zipfile.ZIP_STORED if "stored" in form else zipfile.ZIP_DEFLATED
            ) as out:
                for name, data in files.items():
                    out.writestr(f"photos/{name}", data)
        elif form == "sparse tar":
            path.write_bytes(sparse_tar(files))
        else:
            path.write_bytes(
                tar_of(files, "w:gz" if form == "tar.gz" else "w", form == "linked tar")
            )
        return path, path
    if form == "parquet":
        rows = [
            {"image": {"bytes": data, "path": name}, "label": n % 2}
            for n, (name, data) in enumerate(files.items())
        ]
        table = pa.Table.from_pylist(rows).replace_schema_metadata(
            {
                "huggingface": json.dumps(
                    {"info": {"features": {"label": {"names": ["bus", "car"]}}}}
                )
            }
        )
        pq.write_table(table, root / "train.parquet", row_group_size=3)
        return root, root / "train.parquet"
    if form == "labels.csv":
        for number, data in enumerate(files.values()):
            (root / f"{number}.png").write_bytes(data)
        rows = [f"{n}.png,{('bus', 'car')[n % 2]}" for n in range(8)]
        (root / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
        return root, root / "labels.csv"
    members = {}
    for number, data in enumerate(files.values()):
        members |= {f"{number}.png": data, f"{number}.cls": str(number % 2).encode()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            add(tar, name, data)
    (root / "train-0.tar").write_bytes(out.getvalue())
    lists = ["bus\ncar\n", "0: bus\n1: car\n", "{0: 'bus', 1: 'car'}", '["bus", "car"]']
    (root / "classes.txt").write_text(random.choice(lists))
    return root, root / ("classes.txt" if form == "classes.txt" else "train-0.tar")


def mutate(data: bytes) -> bytes:
    """Return bytes with one to six changes."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(changed) + 1)
        match random.randrange(8):
            case 0 | 1 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << random.randrange(8)
            case 2:
                changed[at : at + random.choice([1, 4, 512])] = b""
            case 3:
                changed[at:at] = random.randbytes(random.choice([1, 4, 512]))
            case 4:
                changed[at : at + 8] = struct.pack(
                    "<Q", random.choice([0, 1, 1 << 31, 1 << 62, (1 << 64) - 1])
                )
            case 5:
                end = at + random.choice([16, 512, 2048])
                changed[at:at] = changed[at:end]
            case 6:
                changed[at : at + 12] = random.choice(
                    [b"7" * 12, b"\x80" + b"\xff" * 11, b"0" * 12]
                )
            case 7 if random.random() < 0.3:
                del changed[at:]
            case _:
                pass
    return bytes(changed)


def try_case(seed: int, form: str) -> str:
    """Do one case; return what became of it."""
    random.seed(f"{seed}/{form}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        root.mkdir()
        os.environ["ALEXNET_CACHE"] = f"{folder}/cache"
        source, damaged = build(form, root)
        damaged.write_bytes(mutate(damaged.read_bytes()))
        try:
            opened = open_source(source)
        except AlexNetError as error:
            return "refused" if str(error).count("\n") == 0 else f"many lines: {error}"
        options, skipped = Options(size=8), 0
        for split in opened.splits.values():
            for sample in split:
                skipped += isinstance(prepare_image(sample, options), str)
        opened.fingerprint()
        return "read, images skipped" if skipped else "read"


def work(tasks: Any, answers: Any) -> None:
    """Do cases until there are none."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed, form in iter(tasks.recv, None):
        try:
            text = try_case(seed, form)
        except Exception:
            text = f"TRACEBACK {traceback.format_exc()[-1500:]}"
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began
        answers.send((text, more * 1024))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results: Counter[tuple[str, str]] = Counter()
    context = multiprocessing.get_context("spawn")
    worker, wrong, slowest, most = None, 0, 0.0, 0
    for number in range(given.cases):
        form = FORMS[number % len(FORMS)]
        if worker is None:
            tasks, theirs = context.Pipe()
            answers, ours = context.Pipe()
            worker = context.Process(target=work, args=(theirs, ours), daemon=True)
            worker.start()
            ours.close()
        begun = time.monotonic()
        tasks.send((given.seed + number, form))
        try:
            text, memory = (
                answers.recv() if answers.poll(SECONDS if number else 60) else ("HANG", 0)
            )
        except EOFError:
            text, memory = f"DIED {worker.exitcode}", 0
        slowest, most = max(slowest, time.monotonic() - begun if number else 0), max(most, memory)
        if memory > MEMORY:
            text = f"MEMORY {memory:,}"
        if text[:4] in ("HANG", "DIED", "MEMO"):
            worker.kill()
            worker = None
        if text.split()[0] in ("HANG", "DIED", "MEMORY", "TRACEBACK", "many"):
            wrong += 1
            print(f"seed {given.seed + number}, {form}: {text}", flush=True)
            text = text.split()[0]
        results[form, text] += 1
    for form in FORMS:
        counts = ", ".join(f"{n:,} {what}" for (f, what), n in sorted(results.items()) if f == form)
        print(f"{form}: {counts}")
    print(
        f"{given.cases:,} cases, {wrong} wrong; the slowest {slowest:.2f} s; "
        f"at most {most / 1e6:,.0f} MB more"
    )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
