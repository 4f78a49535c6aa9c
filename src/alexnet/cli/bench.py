"""``alexnet bench``."""

import json as json_format
from pathlib import Path

from alexnet.errors import ConfigError, did_you_mean

WORKS = ("train", "infer", "lrn", "prepare", "loader")
NEED_IMAGES = ("prepare", "loader")


def bench(
    *works: str,
    network: str = "single",
    batch_size: int = 64,
    rounds: int = 5,
    images: Path | None = None,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Measure this machine's speed side by side with the usual ways to run the same network.

    Example: `alexnet bench train infer`

    Parameters
    ----------
    works
        train, infer, lrn, prepare, loader; by default all that can be run: prepare and loader
        need --images.
    network
        The network to run.
    batch_size
        Images a step.
    rounds
        Interleaved measurements of each; the median is reported, with the spread.
    images
        A folder of photographs, JPEG files, for prepare and loader.
    threads
        Processor threads; by default all.
    json
        Print one JSON object and nothing else.
    """
    for work in works:
        if work not in WORKS:
            raise ConfigError(f"No benchmark is called {work!r}.", did_you_mean(work, WORKS))

    for name, value in (("batch-size", batch_size), ("rounds", rounds)):
        if value < 1:
            raise ConfigError(f"--{name} is {value}.", "It must be at least 1.")

    from alexnet.bench.report import as_text, measured
    from alexnet.variants import network_named

    report = measured(
        works or [work for work in WORKS if images or work not in NEED_IMAGES],
        network_named(network),
        batch_size=batch_size,
        rounds=rounds,
        threads=threads,
        images=images,
    )
    print(json_format.dumps(report) if json else as_text(report))
