"""Figure 1 as a picture: every run of both networks, and nothing else."""

import pytest

from alexnet.claims.claim import FILE, CurvePoint, append_result, read_results
from alexnet.claims.plots import draw_figure_1, page_style, save_figure_1
from alexnet.errors import RunError
from tests.claims.test_results import RELU, result


def trained(arm, name, seed, *errors):
    points = [
        CurvePoint(epoch=n, loss=1.0, train_error=error) for n, error in enumerate(errors, start=1)
    ]
    return result(arm, seed=seed, arms=(name,), curve=tuple(points))


@pytest.fixture
def folder(tmp_path):
    for one in (
        trained(RELU.first, "relu/tanh", 0, 0.8, 0.6, 0.5),
        trained(RELU.second, "relu/ReLU", 0, 0.7, 0.25),
        trained(RELU.second, "relu/ReLU", 1, 0.6, 0.3, 0.2),
        trained(RELU.second, "relu/ReLU at 0.1", 2, 0.9),
    ):
        append_result(tmp_path / FILE, one)
    return tmp_path


def test_each_compared_run_is_a_line_and_trials_of_rates_are_none(folder):
    with page_style():
        axes = draw_figure_1(read_results(folder / FILE)).axes[0]
    lines = [(line.get_gid(), list(map(float, line.get_ydata()))) for line in axes.lines]
    assert [line for line in lines if "thin" in line[0]] == [
        ("curve thin first", [0.8, 0.6, 0.5]),
        ("curve thin second", [0.7, 0.25]),
        ("curve thin second", [0.6, 0.3, 0.2]),
    ]
    means = [line for line in axes.lines if line.get_gid() in ("curve first", "curve second")]
    assert [line.is_dashed() for line in means] == [True, False]
    assert [line for line in lines if line[0] == "paper"] == [("paper", [0.25, 0.25])]
    assert len(lines) == 3 + 2 + 1


def test_the_command_draws_it_in_both_forms(folder, command):
    done = command("figures", folder)
    assert done.returncode == 0, done.stderr
    for name, start in (("figure-1.png", b"\x89PNG"), ("figure-1.svg", b"<?xml")):
        assert (folder / "figures" / name).read_bytes().startswith(start)


def test_without_runs_of_both_networks_it_says_how_they_are_made(tmp_path):
    append_result(tmp_path / FILE, trained(RELU.second, "relu/ReLU", 0, 0.5))
    with pytest.raises(RunError, match="alexnet claims relu"):
        next(save_figure_1(tmp_path))
