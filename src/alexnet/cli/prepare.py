"""``alexnet prepare``."""

from pathlib import Path


def prepare(
    source: str,
    dir: Path,
    *,
    workers: int | None = None,
    size: int = 256,
    quality: int = 95,
    exif: bool = True,
    seed: int = 0,
) -> None:
    """Make a prepared data set of any source; run it again to finish one that was stopped.

    Example: `alexnet prepare photographs/ prepared/`

    Parameters
    ----------
    source
        A class folder (`DIR/class/*.jpg`, with or without `train`, `val`, `test` above), a folder
        of Parquet files in the Hugging Face image layout, or a built-in name (`elpv`).
    dir
        The folder to make.
    workers
        Threads; by default one a processor. The result does not depend on it.
    size
        Pixels on a side: the shorter side is scaled to it and the central square kept.
    quality
        Of the JPEG files inside, 1 to 100.
    exif
        Turn photographs upright as their EXIF orientation says.
    seed
        Of the stratified test split that is made of a source which holds nothing out.
    """
    from alexnet.cli.screen import Screen
    from alexnet.data.prepare import Options
    from alexnet.data.prepare import prepare as prepare_data
    from alexnet.data.sources import open_source

    with Screen() as screen:
        found = open_source(source, seed)
        for note in found.notes:
            screen.say(note)
        options = Options(size=size, quality=quality, exif=exif)
        manifest = prepare_data(found, dir, options, workers=workers, report=screen.prepared)
    for path, reason in manifest.skipped:
        print(f"skipped {path}: {reason}")
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    print(f"{manifest.name}: {len(manifest.classes)} classes, images: {counts}")
    print(f"classes: {', '.join(manifest.classes)}")
    if manifest.skipped:
        print(f"{len(manifest.skipped):,} images were skipped, named above.")
