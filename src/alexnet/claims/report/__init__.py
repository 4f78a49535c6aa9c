"""The report on the claims: ``report.html``, one file that needs no network, and ``report.md``."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet.claims.claim import Check, Claim, Result
from alexnet.claims.report.finding import found
from alexnet.claims.report.markdown import document
from alexnet.claims.report.page import page
from alexnet.files import atomic_write


def write(
    claims: Iterable[Claim | Check],
    results: Sequence[Result],
    folder: Path,
    *,
    command: str = "alexnet claims",
    notes: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Write both forms of the report into `folder`; return their paths, the page first.

    The same claims and results make the same bytes. A claim without runs is in the report too,
    and says so.

    Parameters
    ----------
    claims : iterable of Claim or Check
        In the order in which they are shown.
    results : sequence of Result
        Finished runs, of these claims or others.
    folder : Path
        An existing folder.
    command : str
        What repeats the runs, up to the name of a claim.
    notes : sequence of str
        What a reader must know about all of them, a paragraph each: how the data differ from
        the paper's, at what scale this is.
    """
    shown = [found(claim, results) if isinstance(claim, Claim) else claim for claim in claims]
    texts = {
        "report.html": page(shown, command, notes),
        "report.md": document(shown, command, notes),
    }
    paths = []
    for name, text in texts.items():
        paths.append(folder / name)
        with atomic_write(paths[-1]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths[0], paths[1]
