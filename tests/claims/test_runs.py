"""What a run's log comes to, on logs short enough to work out by hand."""

import shutil
from dataclasses import replace

import pytest
import torch

from alexnet.claims.ensembles import check_ensemble, compare_sizes
from alexnet.claims.runs import learning_curve, measure_log, measure_units, measures_of_chance
from alexnet.claims.scales import SMALL
from alexnet.network import build
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.randomness import Order
from alexnet.training.run import Run, RunConfig
from tests.claims.samples import WITH, result

RECIPE = SMALL.five.recipe.with_(epochs=4, batch_size=10, log_every=1)
ORDER = Order(images=25, batch_size=10, seed=0)  # two and a half steps an epoch


def steps(*errors, first=1):
    return [
        {"step": number, "epoch": number / 2.5, "loss": 2 * error, "train_top1": 1 - error}
        for number, error in enumerate(errors, start=first)
    ]


def validations(**errors):
    """Return the lines of tests at the steps s3, s5, s8, s10, with which epochs 1 to 4 end."""
    return [
        {"step": (number := int(name[1:])), "epoch": number / 2.5, "val_top1": 1 - error}
        for name, error in errors.items()
    ]


def test_a_curve_is_the_mean_of_each_epoch_and_its_test():
    """A step belongs to the epoch of its first image: 1 to 3, 4 and 5, 6 to 8, 9 and 10."""
    lines = steps(0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.3, 0.3, 0.2, 0.1) + validations(s3=0.75, s10=0.5)
    curve = list(learning_curve(lines, ORDER))
    assert [point.epoch for point in curve] == [1, 2, 3, 4]
    assert [point.train_error for point in curve] == pytest.approx([0.8, 0.5, 0.3, 0.15])
    assert [point.loss for point in curve] == pytest.approx([1.6, 1.0, 0.6, 0.3])
    assert [point.test_error for point in curve] == [0.75, None, None, 0.5]


def test_25_percent_is_reached_where_the_last_epochs_updates_have_it():
    """Steps 8 and 9: .3 and .2, whose mean is .25; a step before, .3."""
    lines = steps(0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.3, 0.3, 0.2, 0.1)
    found, censored = measure_log(lines, ORDER, RECIPE)
    assert found["epochs_to_25"] == pytest.approx(9 / 2.5)
    assert censored == ()


def test_a_run_that_does_not_get_there_is_a_bound():
    found, censored = measure_log(steps(0.9, 0.8, 0.7, 0.3), ORDER, RECIPE)
    assert found["epochs_to_25"] == 4
    assert censored == ("epochs_to_25",)


def test_one_good_step_is_no_epoch():
    found, _ = measure_log(steps(0.0), ORDER, RECIPE)
    assert found["epochs_to_25"] == 4


def test_convergence_is_within_two_points_of_the_lowest():
    lines = steps(*[0.5] * 10) + validations(s3=0.6, s5=0.52, s8=0.505, s10=0.53)
    found, _ = measure_log(lines, ORDER, RECIPE)
    assert found["epochs_to_converge"] == 2  # .52, with .505 the lowest
    assert found["test_error"] == pytest.approx(0.53)


def test_a_test_counts_where_nothing_of_its_epoch_was_logged():
    """With fewer steps an epoch than between two lines of the log there is no point of a curve."""
    lines = steps(0.5, first=10) + validations(s3=0.6, s5=0.51, s8=0.505, s10=0.5)
    assert [point.epoch for point in learning_curve(lines, ORDER)] == [4]
    found, _ = measure_log(lines, ORDER, RECIPE)
    assert found["epochs_to_converge"] == 2
    assert found["test_error"] == pytest.approx(0.5)
    assert measure_log(validations(s3=0.6), ORDER, RECIPE)[0]["test_error"] == pytest.approx(0.6)


def test_a_diverged_run_has_every_measure_of_one_that_guesses():
    found = measures_of_chance(0.9, RECIPE.with_(test_crops=10))
    assert found == {
        "test_error": 0.9, "test_error_10_views": 0.9, "final_train_error": 0.9, "gap": 0.0,
        "epochs_to_25": 4, "epochs_to_converge": 4,
    }  # fmt: skip


def test_networks_that_are_wrong_in_different_places_help_each_other():
    """Each of three is sure of the wrong class for a third of the images."""
    labels = torch.arange(12) % 2
    of_each = torch.full((3, 12, 2), 0.2).scatter(2, labels.expand(3, -1)[:, :, None], 0.8)
    for member in range(3):
        of_each[member, 4 * member : 4 * member + 4] = of_each[
            member, 4 * member : 4 * member + 4
        ].flip(1)
    check = compare_sizes(of_each, labels, "lrn/with LRN")
    assert check.rows[0].ours == check.rows[1].ours == "33.33%"  # of two the first class wins a tie
    assert check.rows[2].ours == check.rows[3].ours == "0.00%"
    assert not check.rows[1].agrees
    assert check.rows[2].agrees


@pytest.mark.parametrize("left", ["no folder", "no checkpoint", "diverged"])
def test_runs_that_are_not_trained_to_their_end_here_are_not_asked(left, prepared, tmp_path):
    """Merged lines of another machine, a run that was begun, one that guesses: three of a kind."""
    runs = {
        seed: result(WITH, seed, (), test_error=0.2) for seed in range(2)
    }  # whose folders would be opened
    for run in runs.values():
        (tmp_path / run.key).mkdir()
        (tmp_path / run.key / "test.json").write_text("{}")
    if left == "no folder":
        shutil.rmtree(tmp_path / runs[0].key)
    elif left == "no checkpoint":
        (tmp_path / runs[0].key / "test.json").unlink()
        (tmp_path / runs[0].key / "config.json").write_text("{}")
    else:
        runs[0] = replace(runs[0], failed="The loss is no number at step 12.")
    assert check_ensemble(runs, tmp_path, prepared) is None


def test_units_that_are_never_and_always_active_are_counted(prepared, tmp_path):
    """Biases decide: of a layer's units a quarter cannot be active and a half cannot be silent."""
    spec = replace(SMALL.five.spec, num_classes=2)
    config = RunConfig(
        spec=spec, recipe=SMALL.five.recipe, classes=prepared.classes, data=str(prepared.root),
        data_fingerprint="", data_size=prepared.manifest.size, made_with={},
    )  # fmt: skip
    weights = build(spec, 0).state_dict()
    weights["fc6.weight"] *= 1e-6
    weights["fc6.bias"][:128], weights["fc6.bias"][128:384] = -1e9, 1e9
    weights["fc6.bias"][384:] = 0
    run = Run.start(tmp_path / "run", config, prepared.statistics, first=Checkpoint(0, weights))
    found = measure_units(run, prepared)
    assert 0.25 <= found["never_active"] <= 0.5
    assert 0.5 <= found["always_active"] <= 0.75
    assert found["never_active"] + found["always_active"] <= 1
    assert found["always_active_before"] != found["always_active"]
