"""Archives and folders that tests write, and what a source finds in them."""

import io
import tarfile
from pathlib import Path


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return out.getvalue()


def content(source) -> dict[str, list[tuple[str, bytes]]]:
    return {
        split: [(source.classes[item.label], item.read()) for item in items]
        for split, items in source.splits.items()
    }


def files_of(root: Path) -> dict[str, bytes]:
    return {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in sorted(root.rglob("*.*"))
        if file.is_file()
    }
