"""Any data a user can name -> an opened prepared data set, prepared into a cache if need be."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from alexnet.data.downloads import DownloadReport
from alexnet.data.options import Options
from alexnet.data.prepare import Progress, prepare
from alexnet.data.samples import Source
from alexnet.data.shards import FORMAT, REPORT, PreparedData, is_prepared, open_prepared
from alexnet.data.sources import open_source
from alexnet.files import cache_folder


def open_or_prepare(
    where: str | Path,
    options: Options = Options(),  # noqa: B008 -- a frozen value
    *,
    seed: int = 0,
    workers: int | None = None,
    choose: Callable[[Source], Source] = lambda source: source,
    say: Callable[[str], None] = lambda text: None,
    report: Callable[[Progress], None] = lambda progress: None,
    fetched: DownloadReport = lambda file, done, total: None,
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
    workers : int
        Processes that prepare; by default one a processor.
    choose : callable
        Returns what of a source is to be prepared; by default everything.
    say, report, fetched
        Called with sentences for the user, with the progress, and with that of a download.

    Raises
    ------
    DataError
        When it is no data, or cannot be prepared.
    """
    if is_prepared(Path(where)):
        return open_prepared(where)
    source = choose(open_source(where, seed, report=fetched))
    for note in source.notes:
        say(note)
    identity = f"{FORMAT} {source.fingerprint()} {source.stamp} {options}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    root = cache_folder() / f"{source.name}-{options.size}-{key}"
    if not is_prepared(root):
        say(f"Preparing {source.name} in {root}, once.")
    manifest = prepare(source, root, options, workers=workers, report=report)
    if manifest.skipped:
        say(f"{manifest.skipped:,} images were skipped: {root / REPORT} says why.")
    return open_prepared(root)
