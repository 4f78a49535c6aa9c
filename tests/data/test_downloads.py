"""Downloads over a real connection to a real server, interrupted and damaged on purpose."""

import contextlib
import hashlib
import http.server
import re
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet.data import downloads
from alexnet.data.downloads import ARCHIVES, Archive, download, find_archive, hash_zip_members
from alexnet.data.sources import open_source
from alexnet.errors import DataError

CONTENT = bytes(range(256)) * 20_000  # 5 MB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `CONTENT`, whole or from where it is asked; ``/short`` hangs up halfway."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and self.path != "/plain" else 0
        if self.path == "/missing":
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 2_000_000 if self.path == "/short" else None])

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(server, path: str, content: bytes = CONTENT) -> Archive:
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    return Archive(url, "a.bin", f"md5:{hashlib.md5(content).hexdigest()}")


def test_a_download_is_whole_checked_and_its_progress_told(server, tmp_path):
    told = []
    download(archive(server, "file"), tmp_path / "new" / "a.bin", lambda *news: told.append(news))
    assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT
    assert told[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_two_that_download_the_same_send_for_it_once(server, tmp_path):
    target = tmp_path / "a.bin"
    threads = [
        threading.Thread(target=download, args=(archive(server, "file"), target)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("path", ["short", "plain"])
def test_an_interrupted_download_goes_on(server, tmp_path, path):
    """``plain`` cannot go on where it was and sends everything again."""
    with pytest.raises(DataError, match=r"cannot be downloaded .*Run the command again to go on"):
        download(archive(server, "short"), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    for _ in range(2 if path == "short" else 1):  # two more pieces, or all of it at once
        with contextlib.suppress(DataError):
            download(archive(server, path), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked[1] == "bytes=2000000-"


def test_a_download_that_was_whole_before_it_was_named_is_kept(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(archive(server, "file"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_what_was_not_published_is_refused_and_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match="is not what was published"):
        download(archive(server, "file", b"another"), tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_no_file_and_no_server_are_sentences(server, tmp_path):
    with pytest.raises(DataError, match=r"missing cannot be downloaded \(Not Found\)"):
        download(archive(server, "missing"), tmp_path / "a.bin")
    nobody = replace(archive(server, "file"), url="http://127.0.0.1:9/a.bin")
    with pytest.raises(DataError, match=r"refused.* put it into a folder as a.bin.*ALEXNET_DOWN"):
        download(nobody, tmp_path / "a.bin")


def test_a_folder_of_archives_is_used_first_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DOWNLOADS", str(tmp_path))
    (tmp_path / ARCHIVES["cifar10"].file).write_bytes(b"another file")
    with pytest.raises(DataError, match="is not the archive of cifar10, md5:c32a1d4a"):
        find_archive("cifar10")


def test_a_zip_that_is_packed_anew_is_known_by_its_members(photographs, tmp_path, monkeypatch):
    def pack(path: Path, top: str, method: int) -> str:
        with zipfile.ZipFile(path, "w", method) as out:
            for file in sorted(photographs.rglob("*.png")):
                out.write(file, f"{top}/{file.relative_to(photographs)}")
        return hash_zip_members(path)

    first = pack(tmp_path / "clothing-dataset-small.zip", "repo-1", zipfile.ZIP_DEFLATED)
    assert first == pack(tmp_path / "other.zip", "repo-2", zipfile.ZIP_STORED)
    changed = {"clothing": replace(ARCHIVES["clothing"], checksum=f"members:{first}")}
    monkeypatch.setattr(downloads, "ARCHIVES", changed)
    monkeypatch.setenv("ALEXNET_DOWNLOADS", str(tmp_path))
    source = open_source("clothing")
    assert source.name == "clothing"
    assert len(source.splits["train"]) == 36
    data = bytearray((tmp_path / "other.zip").read_bytes())
    data[5000] ^= 1  # within an image
    (tmp_path / "other.zip").write_bytes(data)
    assert hash_zip_members(tmp_path / "other.zip") == ""
    shutil.copy(tmp_path / "other.zip", tmp_path / "clothing-dataset-small.zip")
    with pytest.raises(DataError, match="is not the archive of clothing"):
        open_source("clothing")
