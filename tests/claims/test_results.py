"""A finished run is a whole line, whatever was killed while it was written."""

import json
from dataclasses import replace

import pytest

from alexnet.claims.claim import (
    TUNING_SEED,
    CurvePoint,
    RunResult,
    append_result,
    measurements_by_seed,
    read_results,
    results_by_seed,
    run_key,
)
from alexnet.claims.experiments import make_claims
from alexnet.claims.grid import (
    GridConfig,
    NamedArm,
    choose_learning_rates,
    describe_result,
    make_tasks,
    results_of,
    unfinished_tasks,
)
from alexnet.claims.scales import SMALL
from alexnet.claims.verdict import Measurement

RELU = make_claims(SMALL)[0]


def result(arm=RELU.first, seed=0, **changes):
    made = RunResult(
        key=run_key(arm.spec, arm.recipe.with_(seed=seed), "data"),
        arms=("relu/tanh",),
        seed=seed,
        spec=arm.spec,
        recipe=arm.recipe.with_(seed=seed),
        data={"name": "photographs", "fingerprint": "data", "train": 36, "test": 12},
        seconds=1.5,
        machine="a machine",
        versions={"torch": "2"},
        commit="abc",
        curve=(CurvePoint(epoch=1, loss=2.25, train_error=0.875, test_error=0.5),),
        measures={"epochs_to_25": 12.5, "test_error": 0.5},
        censored=("epochs_to_25",),
    )
    return replace(made, **changes)


def test_a_result_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "results.jsonl"
    written = [result(seed=0), result(RELU.second, seed=1, failed="It diverged.")]
    for one in written:
        append_result(file, one)
    assert read_results(file) == written
    assert read_results(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("kept", [1, 40, -2, -1])
def test_a_line_that_a_kill_cut_short_spoils_none_but_itself(tmp_path, kept):
    file = tmp_path / "results.jsonl"
    append_result(file, result(seed=0))
    whole = len(file.read_bytes())
    append_result(file, result(seed=1))
    torn = file.read_bytes()
    file.write_bytes(torn[: whole + kept] if kept > 0 else torn[:kept])
    again = [one.seed for one in read_results(file)]
    assert again == ([0] if kept != -1 else [0, 1])  # all but the line's end is a whole line
    append_result(file, result(seed=2))
    assert [one.seed for one in read_results(file)] == [*again, 2]


def test_files_that_are_put_one_behind_another_lose_no_line(tmp_path):
    """Also where a kill cut the first one's last line short."""
    file, more = tmp_path / "results.jsonl", tmp_path / "more.jsonl"
    for one, seeds in ((file, (0, 1)), (more, (2, 3))):
        for seed in seeds:
            append_result(one, result(seed=seed))
    first, second = file.read_bytes().splitlines(keepends=True)
    for kept in (1, 6, len(second) // 2, len(second) - 2, len(second) - 1):
        file.write_bytes(first + second[:kept] + more.read_bytes())
        found = [one.seed for one in read_results(file)]
        assert found == [0, 2, 3], kept


def test_a_run_that_is_there_twice_took_its_time_once(tmp_path):
    """What went on from its checkpoint on the same machine took both times."""
    file = tmp_path / "results.jsonl"
    for _ in range(2):
        append_result(file, result(seconds=60.0))
    assert read_results(file)[0].seconds == 60.0
    append_result(file, result(seconds=20.0, machine="another"))  # trained there once more
    assert read_results(file)[0].seconds == 20.0
    append_result(file, result(seconds=5.0, machine="another", measures={"gap": 0.5}))
    assert read_results(file)[0].seconds == 25.0


def test_of_two_lines_of_a_run_the_newer_counts(tmp_path):
    file = tmp_path / "results.jsonl"
    append_result(file, result(measures={"epochs_to_25": 1.0}))
    append_result(file, result(measures={"epochs_to_25": 1.0, "gap": 0.5}))
    assert [one.measures["gap"] for one in read_results(file)] == [0.5]


def test_what_an_older_line_alone_has_measured_stays(tmp_path):
    """A network that one claim asks for its gap and a later one for its views is one run."""
    file = tmp_path / "results.jsonl"
    append_result(file, result(measures={"test_error": 0.5, "gap": 0.25}, seconds=60.0))
    append_result(file, result(measures={"test_error": 0.5, "test_error_10_views": 0.4}))
    append_result(file, result(seed=1, measures={"test_error": 0.75}))
    first, other = read_results(file)
    assert first.measures == {"test_error": 0.5, "gap": 0.25, "test_error_10_views": 0.4}
    assert first.seconds == 61.5
    assert first.censored == ("epochs_to_25",)
    assert other.measures == {"test_error": 0.75}


def test_of_a_run_that_failed_and_was_made_again_nothing_stays(tmp_path):
    """A gap of chance would hide that the gap was never measured."""
    file = tmp_path / "results.jsonl"
    append_result(file, result(measures={"test_error": 0.9, "gap": 0.0}, failed="It diverged."))
    append_result(file, result(measures={"test_error": 0.25}))
    assert read_results(file) == [result(measures={"test_error": 0.25})]


def test_lines_of_another_version_are_passed_over(tmp_path):
    file = tmp_path / "results.jsonl"
    append_result(file, result())
    fields = json.loads(file.read_text())
    fields["recipe"]["a field of tomorrow"] = 1
    file.write_text(json.dumps(fields) + "\n")
    assert read_results(file) == []


def test_a_run_of_before_a_recipe_had_a_field_is_still_that_run(tmp_path):
    file = tmp_path / "results.jsonl"
    append_result(file, result())
    fields = json.loads(file.read_text()) | {"key": "as it was hashed then"}
    del fields["recipe"]["test_crops"], fields["spec"]["convs"][0]["asymmetric_padding"]
    file.write_text(json.dumps(fields) + "\n")
    assert read_results(file) == [result()]


def test_a_key_tells_networks_recipes_seeds_and_data_apart_and_nothing_else():
    spec, recipe = RELU.first.spec, RELU.first.recipe
    keys = {
        run_key(spec, recipe, "data"),
        run_key(RELU.second.spec, recipe, "data"),
        run_key(spec, recipe.with_(seed=1), "data"),
        run_key(spec, recipe.with_(lr=0.5), "data"),
        run_key(spec, recipe, "other data"),
    }
    assert len(keys) == 5
    assert run_key(spec, recipe.with_(epochs=8), "data") == run_key(
        spec, recipe.with_(epochs=8.0), "data"
    )
    assert run_key(spec, recipe.with_(threads=2), "data") == run_key(spec, recipe, "data")


def test_values_are_by_seed_and_say_which_are_bounds():
    choosing = result(seed=TUNING_SEED)
    runs = [result(seed=0), result(seed=1, censored=()), choosing, result(RELU.second, seed=0)]
    assert set(results_by_seed(RELU.first, runs)) == {0, 1}
    assert measurements_by_seed(RELU, RELU.first, runs) == {
        0: Measurement(12.5, censored=True),
        1: Measurement(12.5, censored=False),
    }


def test_each_arm_gets_the_rate_that_was_soonest():
    def trial(arm, lr, epochs, **more):
        tried = replace(arm, recipe=arm.trial_recipe(lr))
        return result(tried, TUNING_SEED, measures={"epochs_to_25": epochs}, **more)

    low, middle, high = RELU.first.learning_rates[:3]
    last = (CurvePoint(epoch=3, loss=1.0, train_error=0.3),)
    runs = [
        trial(RELU.first, low, 3.0), trial(RELU.first, middle, 3.0, curve=last),
        trial(RELU.first, high, 3.0, failed="It diverged.", curve=()),
        trial(RELU.second, low, 3.0), trial(RELU.second, middle, 2.75, censored=()),
        trial(RELU.second, high, 2.5, censored=()),
    ]  # fmt: skip
    (claim,) = choose_learning_rates([RELU], runs)
    assert (claim.first.recipe.lr, claim.second.recipe.lr) == (middle, high)
    assert claim.first.learning_rates == RELU.first.learning_rates


def test_arms_that_are_the_same_run_are_made_once(config):
    same = [NamedArm("a/x", "test_error", RELU.first), NamedArm("b/y", "gap", RELU.first)]
    (task,) = make_tasks(same, 0, config)
    assert task.arms == ("a/x", "b/y")
    assert task.measures == {"test_error", "gap"}
    known = result(key=task.key, measures={"test_error": 0.5})
    assert unfinished_tasks([task], [known]) == [task]
    assert (
        unfinished_tasks([task], [replace(known, measures={"test_error": 0.5, "gap": 0.1})]) == []
    )
    assert [one.arms for one in results_of([task], [known])] == [("a/x", "b/y")]
    assert describe_result(replace(task, measures=frozenset({"test_error"})), known).startswith(
        "a/x, seed 0"
    )


def test_a_claim_on_all_images_is_run_on_all_of_them(config, prepared):
    whole = replace(prepared, manifest=replace(prepared.manifest, fingerprint="whole"))
    arms = [
        NamedArm("a/x", "test_error", RELU.first, all_images=True),
        NamedArm("b/y", "gap", RELU.first),
    ]
    first, second = make_tasks(arms, 0, replace(config, whole=whole))
    assert first.key == run_key(RELU.first.spec, RELU.first.recipe, "whole")
    assert second.key != first.key
    assert len(make_tasks(arms, 0, config)) == 1  # nothing but all of them to be had


@pytest.fixture
def config(prepared, tmp_path):
    return GridConfig(data=prepared, out=tmp_path, workers=1)
