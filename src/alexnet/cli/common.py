"""What commands share: their common parameters, the run they load, the images that they name."""

import contextlib
import glob
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from alexnet.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from alexnet.config import T
    from alexnet.data.shards import PreparedData
    from alexnet.features import NamedImages
    from alexnet.predictor import Predictor

RunFolder = Annotated[Path, Parameter(help="The folder that `alexnet train --out` made.")]
Threads = Annotated[int | None, Parameter(help="Processor threads; by default all.")]
Json = Annotated[bool, Parameter(help="Print one JSON object and nothing else.")]
RunData = Annotated[
    str | None,
    Parameter(help="A prepared data set or any source; by default the run's own."),
]
CliPrecision = Literal["auto", "fp32", "bf16", "int8"]
RUN_HAS = ("config.json", "checkpoints")  # what tells a run from a folder of images
MemberWeights = Annotated[
    str | None,
    Parameter(help="Of several runs, how much each counts: 0.5,0.3,0.2. Equal by default."),
]


def load_predictor(
    run: Path, threads: int | None, precision: CliPrecision | None = None
) -> "Predictor":
    """Load a run, for a number of threads; for int8 onto the processor, yet to be quantized."""
    from alexnet import device as devices
    from alexnet.api import load

    devices.keep_freed_memory()
    devices.use_threads(threads)
    if precision == "int8":
        return load(run, device="cpu")
    return load(run, precision=precision)


def split_runs(run: Path, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return a run with those that are named next, and the names that are left."""
    runs, left = [run], [*names]
    while left and all((Path(left[0]) / name).exists() for name in RUN_HAS):
        runs.append(Path(left.pop(0)))
    return runs, left


def parse_weights(text: str | None) -> list[float] | None:
    """Read ``0.5,0.3,0.2``."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--weights is {text!r}.", "Write 0.5,0.3,0.2.") from None


def open_data(
    run: Path, predictor: "Predictor", named: str | None, *, hold_out: bool = True
) -> "PreparedData":
    """Open the data that were named, or else the run's own, at the size of the run's images.

    `hold_out` is False where nothing is trained or calibrated: then any images will do.
    """
    from alexnet.data.prepare import Options, open_or_prepare
    from alexnet.training.run import Run

    opened = Run.open(run)
    return open_or_prepare(
        named or opened.find_data(),
        Options(size=predictor.resize_to),
        seed=opened.config.recipe.seed,
        hold_out=hold_out,
        say=lambda text: print(text, file=sys.stderr),
    )


def find_files(name: str) -> list[Path]:
    """Return the files that an argument means: itself, those of a folder, or of a pattern."""
    path = Path(name)
    if path.is_dir():
        from alexnet.data.archives import reason_to_pass_over

        found = [
            file
            for file in sorted(path.rglob("*"))
            if not reason_to_pass_over(str(file.relative_to(path))) and file.is_file()
        ]
        if not found:
            raise DataError(f"The folder {name!r} has no images.")
        return found
    if path.exists() or not glob.has_magic(name):
        if not path.exists():
            raise DataError(f"There is no file {name!r}.", "Name an image, a folder or a pattern.")
        return [path]
    if matching := [Path(match) for match in sorted(glob.glob(name, recursive=True))]:  # noqa: PTH207 -- absolute patterns too
        return matching
    raise DataError(f"No file matches {name!r}.")


def find_images(
    run: Path, predictor: "Predictor", data: Sequence[str], split: str
) -> tuple["NamedImages", tuple[str, ...]]:
    """Return the images that arguments mean, and the classes of their labels."""
    from alexnet.features import Photographs

    if data and (files := _photographs(data)):
        return Photographs(predictor, files), ()
    prepared, images = open_split(run, predictor, data[0] if data else None, split)
    predictor.check_size(prepared)
    return images, prepared.classes


def open_split(
    run: Path, predictor: "Predictor", named: str | None, split: str
) -> tuple["PreparedData", "NamedImages"]:
    """Open data, and of them a split: train, val, test, held-out or all.

    What is held out of a source without splits is all of it, unless train or test is asked for.
    """
    from alexnet.features import JoinedSplits

    prepared = open_data(run, predictor, named, hold_out=split in ("train", "test"))
    if split == "held-out":
        return prepared, prepared.held_out
    if split == "all":
        return prepared, JoinedSplits([*prepared.splits.values()])
    if split not in prepared.splits:
        known = (*prepared.splits, "held-out", "all")
        raise ConfigError(f"The data has no split {split!r}.", did_you_mean(split, known))
    return prepared, prepared.splits[split]


def _photographs(data: Sequence[str]) -> list[Path]:
    """Return the photographs that arguments mean; none where they are one data set."""
    from alexnet.data.archives import reason_to_pass_over
    from alexnet.data.shards import is_prepared

    if len(data) == 1 and ((path := Path(data[0])).exists() or not glob.has_magic(data[0])):
        inside = path.iterdir() if path.is_dir() and not is_prepared(path) else (path,)
        if all(reason_to_pass_over(file.name) for file in inside if file.is_file()):
            return []
    return [file for name in data for file in find_files(name)]


def apply_settings(value: "T", settings: Sequence[str], prefix: str = "") -> "T":
    """Return a recipe or a network with ``NAME=VALUE`` settings applied, one after the other."""
    from alexnet.config import with_setting

    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} has no value.", "Write --set NAME=VALUE.")
        value = with_setting(value, name.removeprefix(prefix), text)
    return value


def require_counts(least: int = 1, most: int = 1 << 20, **counts: int | None) -> None:
    """See that the numbers of flags, each called as its flag, can be counted up to."""
    for name, count in counts.items():
        if count is not None and not least <= count <= most:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} is {count}.", f"Give {least} to {most:,}.")


def parse_units(text: str) -> list[int]:
    """Read ``3,7`` or ``0-15``."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            found += range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise ConfigError(f"--units is {text!r}.", "Write 3,7 or 0-15.") from None
    return found


def parse_duration(text: str) -> float:
    """Return a duration in seconds: 90, 90s, 30m, 4h, 2d or, the larger unit first, 1h30m."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    parts = re.fullmatch("".join(rf"(?:([\d.]+){unit})?" for unit in units), text)
    seconds = math.nan
    with contextlib.suppress(ValueError):
        if parts and text:
            counts = zip(parts.groups(), units.values(), strict=True)
            seconds = sum(float(count) * unit for count, unit in counts if count)
        else:
            seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{text!r} is no duration.", "Write it like 90s, 30m, 4h or 1h30m.")
    return seconds
