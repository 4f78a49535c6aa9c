"""``alexnet serve``."""

import os
from functools import partial
from pathlib import Path

from alexnet.errors import ConfigError, MissingExtraError

FOLLOW_SECONDS = 2.0  # between looks for a newer checkpoint


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
    token_file: Path | None = None,
    follow: bool = False,
    log_json: bool = False,
    drain_seconds: int = 30,
    max_bytes: int = 20_000_000,
    max_pixels: int = 50_000_000,
    compile: bool = True,
) -> None:
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
        Processes that answer at one port; on a processor they share the network's memory.
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
    token_file
        A file of tokens, one a line, any of which is taken.
    follow
        Serve each newer checkpoint of a run that is still training when it is whole.
    log_json
        Print a line of JSON for each request.
    drain_seconds
        That requests in hand have to be answered in when the server is asked to stop.
    max_bytes
        Of a request, at most.
    max_pixels
        Of an image, at most.
    compile
        Compile the network in the background, where that gains.
    """
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
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
        tokens=_read_tokens(token, token_file),
        follow_seconds=FOLLOW_SECONDS if follow else 0,
        drain_seconds=drain_seconds,
        hosts=tuple(allow_host or ()),
        compile=compile,
    )
    address = Address(
        host=host, port=port, workers=workers, threads=threads, data=data, log_json=log_json
    )
    serve_run(run, settings, address, partial(print, flush=True))


def _read_tokens(token: str | None, file: Path | None) -> tuple[str, ...]:
    """Return the tokens that are taken, without the newlines of files that hold them."""
    given = [] if token is None else [token.strip()]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(file)!r} cannot be read: {error}.") from None
        if not (found := [line.strip() for line in lines if line.strip()]):
            raise ConfigError(f"There is no token in {str(file)!r}.", "Write one a line.")
        given += found
    if not given and (held := os.environ.get("ALEXNET_TOKEN")) is not None:
        given = [held.strip()]
    return tuple(given)
