"""How every figure looks, and how it is written to the disk."""

import contextlib
import textwrap
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.errors import import_extra
from alexnet.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ImageFormat = Literal["png", "svg", "both"]
RIGHT, OTHER = "#d1495b", "#6c8ead"  # the right class is red in Figure 4
PALE_RIGHT, PALE_OTHER = "#f3c3ca", "#d3deea"  # the same behind text
INK, FAINT = "#222222", "#b5b5b5"
WIDE_FONTS = (  # for class names in other scripts, where one is installed
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("Microsoft YaHei", "PingFang SC", "Arial Unicode MS"),
)


@contextlib.contextmanager
def drawing_style() -> Iterator[None]:
    """Draw and save figures in the project's style within the block.

    Names are shown as they are: a dollar sign begins no formula, and characters that no installed
    font has become boxes without a warning. matplotlib is an extra: a `MissingExtraError` without.
    """
    mpl = import_extra("matplotlib", "plots", "Drawing figures")
    settings: Any = {
        "font.family": ["DejaVu Sans", *_find_wide_fonts()],
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,
        "axes.formatter.use_mathtext": False,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


@cache
def _find_wide_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return tuple(name for name in WIDE_FONTS if name in installed)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of some inches, whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", folder: Path, name: str, format: ImageFormat = "both") -> Iterator[Path]:
    """Write a figure as PNG (150 dots an inch), SVG or both, each whole or not; yield the paths."""
    for suffix in ("png", "svg") if format == "both" else (format,):
        path = folder / f"{name}.{suffix}"
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=150)
        yield path


def show_image(
    axes: "Axes", pixels: Any, name: str = "", *, width: int = 22, colour: str = INK
) -> None:
    """Show ``(H, W, 3)`` uint8 pixels with a name above, in at most two lines of `width`."""
    axes.imshow(pixels, interpolation="none" if max(pixels.shape) > 100 else "bicubic")
    if name:
        axes.set_title(fold_name(name, width), fontsize=8, color=colour, pad=3)
    axes.set_axis_off()


def shorten(name: str, length: int) -> str:
    """Cut a name that is too long with an ellipsis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def fold_name(name: str, width: int) -> str:
    r"""Break a name into at most two lines of `width` characters, the rest cut with an ellipsis.

    Examples
    --------
    >>> fold_name("American Staffordshire terrier, Staffordshire terrier", 18)
    'American\nStaffordshire…'
    """
    lines = textwrap.wrap(name, width) or [""]
    if len(lines) <= 2:
        return "\n".join(lines)
    second = lines[1] if len(lines[1]) < width else lines[1][: width - 1]
    return f"{lines[0]}\n{second}…"
