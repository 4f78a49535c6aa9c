"""What any reader of foreign files returns, and how it becomes a run."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.statistics import Statistics
from alexnet.data.wordnet import WNID
from alexnet.errors import AlexNetError, RunError
from alexnet.files import sha256
from alexnet.interop.card import IMPORTED
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.run import Run, RunConfig, made_with

LARGEST_FILE = 4 << 30  # bytes; AlexNet's weights are 250 MB, 750 MB with an optimiser's
LARGEST_MEAN = 4096  # pixels on a side
USUAL_SIDE = 256  # of prepared images, for networks of 227 and 224 (section 2)


@dataclass(frozen=True, slots=True)
class MeanColour:
    """A mean of 0-255, in the order of the network's channels, and where it is from."""

    values: tuple[float, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A network from elsewhere."""

    spec: Spec  # whose pixels say the order of channels, the scale, and what else is known
    weights: dict[str, Tensor]
    found: tuple[str, ...]  # what the file was seen to be, in words
    mean: MeanColour | None = None  # None: the spec has it
    mean_image: NDArray[np.float32] | None = None  # (3, side, side), as `mean`
    classes: tuple[str, ...] | None = None
    notes: dict[str, str] = field(default_factory=dict)


@contextmanager
def refused(path: Path | str) -> Iterator[None]:
    """Turn whatever a stranger's file raises while it is understood into a sentence."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"There is no file {str(path)!r}.") from None
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
    except AlexNetError as error:
        raise RunError(f"{str(path)!r} cannot be imported: {error.what}", error.fix) from None
    except RecursionError:
        raise RunError(f"{str(path)!r} is nested too deeply.") from None
    except MemoryError:
        raise RunError(f"{str(path)!r} asks for more memory than there is.") from None
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"{str(path)!r} is damaged or of another format ({str(error)[:200]}).",
            "Download it again, or say what it is with --as.",
        ) from None


def file_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Read a file whole, unless it is larger than any of its kind."""
    size = path.stat().st_size
    if size > most:
        raise RunError(f"It has {size:,} bytes.", f"At most {most:,} are read.")
    return path.read_bytes()


def read_classes(path: Path, count: int) -> tuple[str, ...]:
    """Read names of classes, one a line in the order of the outputs.

    A line that begins with a wnid, as in Caffe's ``synset_words.txt``, is that wnid.

    Raises
    ------
    RunError
        When there are more or fewer than the network has outputs, or two are the same.
    """
    with refused(path):
        text = file_bytes(path, most=1 << 26).decode("utf-8")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        names = tuple(
            line.split()[0] if WNID.fullmatch(line.split()[0]) else line for line in lines
        )
        if len(names) != count:
            raise RunError(
                f"It names {len(names)} classes and the network has {count}.",
                "One a line is right.",
            )
        if len(set(names)) < count:
            twice = next(name for name in names if names.count(name) > 1)
            raise RunError(f"It names {twice!r} twice.")
    return names


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read a mean image ``(3, side, side)`` or colour ``(3,)`` from ``.binaryproto`` or ``.npy``.

    Raises
    ------
    RunError
        When it is neither, or not finite.
    """
    from alexnet.interop.caffe import read_binaryproto

    with refused(path):
        mean = _read_npy(path) if path.suffix == ".npy" else read_binaryproto(path)
        square = mean.ndim == 3 and mean.shape[1] == mean.shape[2]
        if mean.shape[:1] != (3,) or not (mean.ndim == 1 or square):
            raise RunError(f"It is an array of {mean.shape}.", "Expected (3, side, side) or (3,).")
        if not np.isfinite(mean).all():
            raise RunError("It has numbers that are not finite.")
    return mean


def _read_npy(path: Path) -> NDArray[np.float32]:
    """Read an array of a size that was looked at first; never an object."""
    with path.open("rb") as file:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else (
            np.lib.format.read_array_header_2_0
        )  # fmt: skip
        shape, _, kind = header(file)
    if kind.hasobject or kind.kind not in "fiu" or math.prod(shape) > 3 * LARGEST_MEAN**2:
        raise RunError(f"It is an array of {shape}, {kind}.", "Expected numbers, (3, side, side).")
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(values.reshape(-1) if values.ndim == 2 else values, np.float32)


def start_run(
    imported: Imported,
    out: Path,
    source: str,
    form: str,
    *,
    classes: Sequence[str] | None = None,
    mean: NDArray[np.float32] | None = None,
) -> Run:
    """Make a run's folder of an imported network.

    Parameters
    ----------
    imported : Imported
        What a reader found.
    out : Path
        The folder; there must be no run in it.
    source, form : str
        The file, and what it was: for the run's own record.
    classes : sequence of str, optional
        Names in the order of the outputs; else those of the file, else numbers.
    mean : ndarray, optional
        ``(3, side, side)`` or ``(3,)``, 0-255, in the order of the network's channels.

    Raises
    ------
    RunError
        When `out` holds a run, or the mean is smaller than what the network sees.
    """
    if (out / "config.json").exists():
        raise RunError(f"{str(out)!r} is already a run.", "Choose another --out.")
    spec = imported.spec
    if mean is None and imported.mean_image is not None:
        mean = imported.mean_image
    if mean is None and imported.mean is not None:
        mean = np.array(imported.mean.values, np.float32)
    spec, statistics = with_mean(spec, mean)
    names = tuple(classes or imported.classes or map("class {}".format, range(spec.classes)))
    config = RunConfig(
        spec=spec,
        recipe=replace(FAST, precision="fp32"),
        classes=names,
        data=IMPORTED,
        data_fingerprint="",
        data_size=statistics.mean_image.shape[-1],
        made_with={**made_with(), IMPORTED: f"{form}: {Path(source).name}", **imported.notes},
    )
    save_checkpoint(out / "checkpoints", Checkpoint(0, imported.weights))
    return Run.start(out, config, statistics)


def with_mean(spec: Spec, mean: NDArray[np.float32] | None) -> tuple[Spec, Statistics]:
    """Return the spec that subtracts a mean, and the statistics that a run keeps of it.

    A mean image as large as the network's input is the window that it sees; the prepared images
    around it are larger. Nothing is known of the training set's colours: their axes are nought.
    """
    side = USUAL_SIDE if 192 < spec.image <= USUAL_SIDE - 16 else spec.image + spec.image // 8
    if mean is None:
        known = spec.pixels.mean
        colour = np.array(known if isinstance(known, tuple) else (0, 0, 0), np.float32)
        return spec, _statistics((colour / spec.pixels.scale)[:, None, None], side)
    rgb = np.ascontiguousarray(mean[::-1] if spec.pixels.channels == "BGR" else mean)
    if rgb.ndim == 1:
        scaled = tuple(float(value) * spec.pixels.scale for value in rgb)
        pixels = replace(spec.pixels, mean=(scaled[0], scaled[1], scaled[2]))
        return replace(spec, pixels=pixels), _statistics(rgb[:, None, None], side)
    given = rgb.shape[-1]
    if given < spec.image:
        raise RunError(
            f"The mean image has {given} pixels on a side and the network takes {spec.image}.",
            "Give the mean of the whole images, or a mean colour.",
        )
    if given < side and given == spec.image:
        wide = _statistics(rgb.mean((1, 2), keepdims=True), side).mean_image
        at = (side - given) // 2
        wide[:, at : at + given, at : at + given] = rgb
        rgb, given = wide, side
    return replace(spec, pixels=replace(spec.pixels, mean="image")), _statistics(rgb, given)


def _statistics(mean: NDArray[Any], side: int) -> Statistics:
    image = np.array(np.broadcast_to(mean, (3, side, side)), np.float32)
    return Statistics(image, np.zeros(3, np.float32), np.eye(3, dtype=np.float32))


def identity(path: Path) -> dict[str, str]:
    """Return what tells a file from another of the same name."""
    return {"imported_sha256": sha256(path)} if path.is_file() else {}
