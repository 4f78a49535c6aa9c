"""What any reader of foreign files returns, and how it becomes a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.statistics import Statistics
from alexnet.errors import AlexNetError, RunError
from alexnet.files import sha256
from alexnet.interop.card import IMPORTED
from alexnet.recipes import FAST
from alexnet.spec import Spec
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.training.run import Run, RunConfig, software_versions

LARGEST_FILE = 4 << 30  # bytes; AlexNet's weights are 250 MB, 750 MB with an optimiser's
LARGEST_SIDE = 4096  # pixels on a side, of a mean or of prepared images
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
    prepared: int | None = None  # side of the images that its views are cut from, if it says so
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
    except Exception as error:  # zipfile, safetensors and PyTorch have some of no common base
        said = f"{type(error).__name__}: {str(error)[:200]}"
        raise RunError(
            f"{str(path)!r} is damaged or of another format ({said}).",
            "Download it again, or say what it is with --as.",
        ) from None


def file_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Read a file whole, unless it is larger than any of its kind."""
    size = path.stat().st_size
    if size > most:
        raise RunError(f"It has {size:,} bytes.", f"At most {most:,} are read.")
    return path.read_bytes()


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
    spec, statistics = with_mean(spec, mean, imported.prepared)
    names = tuple(classes or imported.classes or map("class {}".format, range(spec.num_classes)))
    config = RunConfig(
        spec=spec,
        recipe=replace(FAST, precision="fp32"),
        classes=names,
        data=IMPORTED,
        data_fingerprint="",
        data_size=statistics.mean_image.shape[-1],
        made_with={
            **software_versions(),
            IMPORTED: f"{form}: {Path(source).name}",
            **imported.notes,
        },
    )
    save_checkpoint(out / "checkpoints", Checkpoint(0, imported.weights))
    return Run.start(out, config, statistics)


def with_mean(
    spec: Spec, mean: NDArray[np.float32] | None, prepared: int | None = None
) -> tuple[Spec, Statistics]:
    """Return the spec that subtracts a mean, and the statistics that a run keeps of it.

    A mean image as large as the network's input is the window that it sees; the prepared images
    around it are larger. Nothing is known of the training set's colours: their axes are nought.
    """
    side = (
        USUAL_SIDE
        if 192 < spec.image_size <= USUAL_SIDE - 16
        else spec.image_size + spec.image_size // 8
    )
    side = prepared if prepared and spec.image_size <= prepared <= LARGEST_SIDE else side
    if mean is None:
        known = spec.pixels.mean
        colour = np.array(known if isinstance(known, tuple) else (0, 0, 0), np.float32)
        return spec, _statistics((colour / spec.pixels.scale)[:, None, None], side)
    rgb = np.ascontiguousarray(mean[::-1] if spec.pixels.channel_order == "BGR" else mean)
    if rgb.ndim == 1:
        scaled = tuple(float(value) * spec.pixels.scale for value in rgb)
        pixels = replace(spec.pixels, mean=(scaled[0], scaled[1], scaled[2]))
        return replace(spec, pixels=pixels), _statistics(rgb[:, None, None], side)
    given = rgb.shape[-1]
    if given < spec.image_size:
        raise RunError(
            f"The mean image has {given} pixels on a side and the network takes {spec.image_size}.",
            "Give the mean of the whole images, or a mean colour.",
        )
    if given < side and given == spec.image_size:
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
