"""Any data a user can name -> an opened prepared data set, prepared into a cache if need be."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from alexnet.data.prepare import Options, Progress, prepare
from alexnet.data.shards import PreparedData, is_prepared, open_prepared
from alexnet.data.sources import open_source


def cache_folder() -> Path:
    """Return where prepared data sets are kept: ``ALEXNET_CACHE``, else the user's cache."""
    if chosen := os.environ.get("ALEXNET_CACHE"):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "alexnet"
    try:
        return Path.home() / ".cache" / "alexnet"
    except RuntimeError:  # no home, as in some containers
        return Path(tempfile.gettempdir()) / "alexnet"


def ready(
    where: str | Path,
    options: Options = Options(),  # noqa: B008 -- a frozen value
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> PreparedData:
    """Open a prepared data set, or prepare a source into the cache and open that.

    Parameters
    ----------
    where : str or Path
        A prepared data set, or anything `sources.open_source` takes.
    options : Options
        For a source.
    seed : int
        Of the split that is made of a source which holds nothing out.
    say, report
        Called with sentences for the user, and with the progress.

    Raises
    ------
    DataError
        When it is no data, or cannot be prepared.
    """
    if is_prepared(Path(where)):
        return open_prepared(where)
    source = open_source(where, seed)
    for note in source.notes:
        say(note)
    identity = f"{source.fingerprint()} {source.stamp} {options}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    root = cache_folder() / f"{source.name}-{options.size}-{key}"
    if not is_prepared(root):
        say(f"Preparing {source.name} in {root}, once.")
    manifest = prepare(source, root, options, report=report)
    if manifest.skipped:
        path, reason = manifest.skipped[0]
        say(f"{len(manifest.skipped)} images were skipped; the first: {path}: {reason}")
    return open_prepared(root)
