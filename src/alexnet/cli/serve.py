"""``alexnet serve``."""

import os
from functools import partial
from pathlib import Path

from alexnet.errors import MissingExtraError


def serve(
    run: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    threads: int | None = None,
    data: str | None = None,
    allow_host: list[str] | None = None,
    token: str | None = None,
    max_bytes: int = 20_000_000,
    max_pixels: int = 50_000_000,
    compile: bool = True,
) -> int:
    """Serve a trained run: a page that shows what it sees, and an API.

    Example: `alexnet serve runs/elpv`, then open http://127.0.0.1:8000

    Parameters
    ----------
    run
        The folder that `alexnet train --out` made.
    host
        The address to listen at; 0.0.0.0 is all of the machine's, for other machines to reach.
    port
        The port to listen at; 0 for a free one.
    workers
        Processes that answer, each with the network in its memory.
    threads
        Processor threads of each worker; by default all.
    data
        Training images to look for patches and neighbours in; by default the run's own.
    allow_host
        A name that the server answers to besides localhost and plain addresses; may be given
        several times. `*` is any.
    token
        What clients must send as `Authorization: Bearer`; by default the environment's
        `ALEXNET_TOKEN`, which other users of the machine cannot read from its list of processes.
    max_bytes
        Of a request, at most.
    max_pixels
        Of an image, at most.
    compile
        Compile the network in the background, for a quarter more images a second.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "Serving a run") from None

    from alexnet.serve.admission import ServerSettings
    from alexnet.serve.server import Address
    from alexnet.serve.server import serve as serve_run

    settings = ServerSettings(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        token=os.environ.get("ALEXNET_TOKEN", "") if token is None else token,
        hosts=tuple(allow_host or ()),
        compile=compile,
    )
    address = Address(host=host, port=port, workers=workers, threads=threads, data=data)
    return serve_run(run, settings, address, partial(print, flush=True))
