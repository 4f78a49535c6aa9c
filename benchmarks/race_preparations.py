"""Pairs of processes on one archive, one cache and one folder, started 0 to 500 ms apart.

``PHOTOS=clothing/train PYTHONPATH=src python benchmarks/race_preparations.py [--count 40]``

Both prepare the same tar.gz: through the cache, as `train` does, and into the same folder, as two
machines would; in every fourth pair one is killed and started again. Both must end well, and
what stands there then must be, file by file, what one process alone makes.
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

PHOTOS = sorted(Path(os.environ["PHOTOS"]).glob("*/*.jpg"))
IMAGES = 60
CHILD = """
import sys
from pathlib import Path
from alexnet.data.prepare import Options, open_or_prepare, prepare
from alexnet.data.sources import open_source
options = Options(size=48, shard_images=8)
if sys.argv[2] == "cache":
    open_or_prepare(sys.argv[1], options, workers=1)
else:
    prepare(open_source(sys.argv[1]), sys.argv[2], options, workers=1)
"""


def make_archive(path: Path) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for number, photo in enumerate(PHOTOS[:: len(PHOTOS) // IMAGES][:IMAGES]):
            tar.add(photo, f"photos/{('bus', 'car')[number % 2]}/{number}.jpg")


def start(archive: Path, target: str, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "ALEXNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(archive), target],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def contents(root: Path) -> dict[str, str]:
    """Return the checksums of the files below a folder, whatever its preparation is called."""
    found = {}
    for file in sorted(root.rglob("*")):
        if file.is_file():
            name = "/".join(file.relative_to(root).parts[-1:])
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=40)
    count = parser.parse_args().count
    draws = random.Random(0)
    wrong = killed = 0
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "photos.tar.gz")
        make_archive(archive)
        expected = {}
        for target in ("cache", "folder"):
            root = Path(folder, f"alone-{target}")
            cache, out = root / "cache", root / "out"
            process = start(archive, "cache" if target == "cache" else str(out), cache)
            assert process.wait() == 0, process.communicate()[0]
            expected[target] = contents(root)
        for number in range(count):
            target = ("cache", "folder")[number % 2]
            root = Path(folder, f"pair{number}")
            cache, out = root / "cache", root / "out"
            where = "cache" if target == "cache" else str(out)
            apart = draws.uniform(0, 0.5)
            pair = [start(archive, where, cache)]
            time.sleep(apart)
            pair.append(start(archive, where, cache))
            if number % 4 == 3:
                time.sleep(draws.uniform(0.1, 0.8))
                victim = draws.randrange(2)
                pair[victim].kill()
                pair[victim].communicate()
                pair[victim] = start(archive, where, cache)
                killed += 1
            said = [process.communicate(timeout=120)[0] for process in pair]
            found = contents(root)
            ends = [process.returncode for process in pair]
            if ends != [0, 0] or found != expected[target]:
                wrong += 1
                more = sorted(set(found.items()) ^ set(expected[target].items()))
                print(
                    f"pair {number} ({target}, {apart * 1000:.0f} ms apart): {ends} {more} {said}"
                )
    print(f"{count} pairs, {killed} with one killed and started again: {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
