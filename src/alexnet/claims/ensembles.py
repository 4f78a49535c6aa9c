"""Networks of one arm asked together, from the seeds that are there: the paper's "5 CNNs"."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from alexnet.claims.claim import Check, CheckRow, RunResult
from alexnet.data.shards import PreparedData
from alexnet.predictor import Ensemble, ask_together, fit_weights
from alexnet.training.run import Run

MOST = 10  # networks: all their 2 ** MOST - 1 choices are tested
PAPER_ERRORS = "40.7 % alone, 38.1 % of 5: 2.6 points less, ILSVRC-2012"


def check_ensemble(runs: Mapping[int, RunResult], folder: Path, data: PreparedData) -> Check | None:
    """Return the test errors of one network, of the mean of several, and of a weighted one.

    Parameters
    ----------
    runs : mapping of int to RunResult
        The finished runs of one arm, by seed.
    folder : Path
        That of the runs, each named by its key. Left out are runs that diverged, and those that
        were not trained and tested to their end in this folder, because another machine made them.
        Of more than ten the first ten are asked.
    data : PreparedData
        Whose held-out images are tested, one crop each.

    Returns
    -------
    Check or None
        None where fewer than two networks are there.
    """
    there = [
        run
        for _, run in sorted(runs.items())
        if not run.failed and (folder / run.key / "test.json").is_file()
    ][:MOST]
    if len(there) < 2:
        return None
    together = ask_together([Run.open(folder / run.key).predictor() for run in there])
    assert isinstance(together, Ensemble)
    return compare_sizes(*together.ask_each(data, data.held_out), there[0].arms[0])


def compare_sizes(of_each: Tensor, labels: Tensor, arm: str) -> Check:
    """Return the errors of ensembles of every size, of probabilities ``(members, N, classes)``.

    The error of a size is the mean over all choices of so many members. Weights are fitted on the
    images of even number and tested on the others, then the other way round.
    """
    members = len(of_each)

    def error(weights: list[float], part: slice = slice(None)) -> float:
        mean = torch.tensordot(torch.tensor(weights), of_each[:, part], 1)
        return float((mean.argmax(1) != labels[part]).float().mean())

    def equal(chosen: tuple[int, ...]) -> list[float]:
        return [float(member in chosen) for member in range(members)]

    errors = [
        fmean(error(equal(chosen)) for chosen in combinations(range(members), size))
        for size in range(1, members + 1)
    ]
    halves = slice(0, None, 2), slice(1, None, 2)
    fitted = fmean(
        error(fit_weights(of_each[:, fit], labels[fit]), test)
        for fit, test in (halves, halves[::-1])
    )
    rows = [
        CheckRow(
            f"{size} networks, equal weights" if size > 1 else "1 network",
            PAPER_ERRORS if size == min(5, members) else "",
            f"{value:.2%}",
            size == 1 or value < errors[size - 2],
            f"{(errors[0] - value) * 100:.2f} points less than one" if size > 1 else "",
        )
        for size, value in enumerate(errors, start=1)
    ]
    note = "Fitted on one half of the images and tested on the other, both ways."
    rows.append(
        CheckRow(f"{members} networks, fitted weights", "as in 2012", f"{fitted:.2%}",
                 fitted < errors[0], note)
    )  # fmt: skip
    return Check(
        name="ensemble",
        section="6, facts 0",
        sentence="The mean of several networks' probabilities is right more often than one, and "
        f"each network more helps ({arm}).",
        rows=tuple(rows),
        is_exact=False,
    )
