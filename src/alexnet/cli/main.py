"""The entry point: finds the command, and turns what goes wrong into a line and a status."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence

import cyclopts

from alexnet import __version__
from alexnet.cli.bench import bench
from alexnet.cli.claims import claims
from alexnet.cli.compare import compare
from alexnet.cli.evaluate import evaluate
from alexnet.cli.explain import explain
from alexnet.cli.export import export
from alexnet.cli.features import features_app
from alexnet.cli.figures import figures, visualise
from alexnet.cli.identify import identify
from alexnet.cli.import_ import import_
from alexnet.cli.launch import launch
from alexnet.cli.predict import predict
from alexnet.cli.prepare import prepare
from alexnet.cli.serve import serve
from alexnet.cli.summary import doctor, summary
from alexnet.cli.train import train
from alexnet.errors import AlexNetError, LostError

FAILED, USAGE, LOST, INTERRUPTED = 1, 2, 3, 128 + signal.SIGINT
STANDARD_ERROR = 2

app = cyclopts.App(
    name="alexnet",
    help="AlexNet (Krizhevsky, Sutskever, Hinton 2012), complete.",
    help_epilogue="Example: `alexnet train elpv --out runs/elpv`, "
    "then `alexnet predict runs/elpv PHOTOGRAPH`. `--debug` adds the traceback to an error.",
    version=__version__,
    help_format="plaintext",  # the list of commands waits for no Markdown
    version_format="plaintext",
    default_parameter=cyclopts.Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,
)
for command in (
    *(summary, prepare, train, launch, evaluate, predict, serve),
    *(explain, visualise, compare, claims, figures, identify, export, bench, doctor),
):
    app.command(command, help_format="markdown")
app.command(features_app)
app.command(import_, name="import", help_format="markdown")


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status.

    0, 1 failed, 2 usage, 3 another process is lost, 75 start again, 130 interrupted, 143 ended.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        status = app(arguments, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except cyclopts.CycloptsError:
        return USAGE  # cyclopts has printed what is wrong
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has gone
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except AlexNetError as error:
        if debug:
            raise
        print(f"alexnet: {_whose()}{error}", file=sys.stderr)
        return LOST if isinstance(error, LostError) else FAILED
    except OSError as error:  # of the disk or the folder, where no sentence of ours fits better
        if debug:
            raise
        where = f": {error.filename!r}" if error.filename else ""
        print(f"alexnet: {_whose()}{error.strerror or error}{where}.", file=sys.stderr)
        return FAILED
    return int(status or 0)


def _whose() -> str:
    """Return which process of several speaks; torchrun says so in the environment."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"rank {os.environ.get('RANK')}: " if several else ""


def mend_streams() -> None:
    """Let any name be printed, escaped where it must be; what goes to a closed stream is lost."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass  # else the next file to be opened would be taken for the stream
    os.close(handle)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 -- no path
    sys.stderr = sys.stderr or open(STANDARD_ERROR, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line of this process."""
    mend_streams()
    sys.exit(run(sys.argv[1:]))
