"""The command as users run it: the whole grid in miniature, and real kills in the middle of it."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from alexnet.claims import grid
from alexnet.claims.claim import TUNING_SEED, append_result, read_results
from alexnet.claims.experiments import make_claims
from alexnet.claims.grid import (
    MAX_SEEDS,
    PLANS_FILE,
    GridConfig,
    Speed,
    apply_budget,
    gather_results,
    list_tasks,
    lock_results,
    plan_grid,
    recall_budget,
    scale_epochs,
    take_part,
    with_num_classes,
)
from alexnet.claims.scales import NIGHT, SMALL
from alexnet.data.sources import open_source
from alexnet.errors import ConfigError
from tests.claims.samples import result
from tests.processes import alive, until, workers

pytestmark = pytest.mark.long  # whole grids, some of them killed
KILLS = int(os.environ.get("ALEXNET_KILLS", "1"))  # of the command, and as many of a worker
FEW = ("overlap", "lrn-alpha")  # six runs of a second each with two seeds
CLAIMS = (sys.executable, "-m", "alexnet", "claims")
LONG = pytest.mark.timeout(900)  # where other work shares the processors


def asked(photographs, out, *more):
    words = (*CLAIMS, *more, "--data", photographs, "--out", out, "--seeds", 2, "--workers", 2)
    return [*map(str, words)]


def table(out):
    """Return what the runs gave, without how long they took."""
    return {
        run.key: (run.seed, run.measures, run.censored, run.curve)
        for run in read_results(out / "results.jsonl")
    }


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory, environment):
    out = tmp_path_factory.mktemp("claims") / "undisturbed"
    done = subprocess.run(
        asked(photographs, out, *FEW), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def steps(out):
    """Return how many lines all runs have logged."""
    return sum(len(log.read_bytes().splitlines()) for log in out.glob("runs/*/metrics.jsonl"))


def begun(photographs, out, environment):
    """Start the command and return it once its runs have made a step or some more."""
    process = subprocess.Popen(
        asked(photographs, out, *FEW), env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    before = steps(out)
    until(lambda: steps(out) > before, process, 300)
    return process


def finished(photographs, out, environment):
    done = subprocess.run(
        asked(photographs, out, *FEW), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@LONG
def test_killed_workers_and_commands_leave_the_table_of_an_undisturbed_one(
    photographs, undisturbed, tmp_path, environment
):
    """SIGKILL of a worker, which the command survives, and of the command, run again after."""
    out, draws, killed = tmp_path / "out", random.Random(0), {"worker": 0, "command": 0}
    while killed["command"] < KILLS:
        process = begun(photographs, out, environment)
        if victims := workers(process):
            os.kill(draws.choice(victims), signal.SIGKILL)
            killed["worker"] += 1
            before = steps(out)
            until(
                lambda before=before: steps(out) > before + draws.randrange(5), process, seconds=300
            )
        process.send_signal(signal.SIGKILL)
        killed["command"] += process.wait() == -signal.SIGKILL
        process.stderr.close()
        if process.returncode == 0:
            break
    finished(photographs, out, environment)
    assert killed["worker"] > 0
    assert killed["command"] > 0
    assert table(out) == table(undisturbed)
    assert verdicts(out) == verdicts(undisturbed)


def verdicts(out):
    """Return the report's summary of all claims, up to the first one's own part."""
    return (out / "report.md").read_text().split("\n## ")[1]


@LONG
def test_asked_to_stop_it_saves_and_the_same_command_goes_on(
    photographs, undisturbed, tmp_path, environment
):
    """SIGINT to the command alone: its workers are told, and nothing is left running."""
    out = tmp_path / "out"
    process = begun(photographs, out, environment)
    making = workers(process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert making
    assert not any(alive(pid) for pid in making)
    finished(photographs, out, environment)
    assert table(out) == table(undisturbed)


CLUSTER = """
import sys
from distributed import LocalCluster
from alexnet.cli.main import run

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        sys.exit(run([*sys.argv[1:], "--cluster", cluster.scheduler_address]))
"""


@LONG
def test_a_dask_cluster_makes_the_same_table(photographs, undisturbed, tmp_path, environment):
    script, out = tmp_path / "cluster.py", tmp_path / "out"
    script.write_text(CLUSTER)
    words = ["claims", *FEW, "--data", photographs, "--out", out, "--seeds", 2]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, words)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert table(out) == table(undisturbed)


def test_runs_that_are_there_are_not_made_again(photographs, undisturbed, environment):
    """Another claim that shares an arm costs its other arm alone."""
    before = (undisturbed / "results.jsonl").read_bytes()
    done = subprocess.run(
        asked(photographs, undisturbed, "overlap", "--json"),
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (undisturbed / "results.jsonl").read_bytes() == before
    (claim,) = json.loads(done.stdout)["claims"]
    assert (claim["name"], claim["seeds"]) == ("overlap", 2)


@LONG
def test_runs_of_another_length_are_other_runs(photographs, undisturbed, tmp_path, environment):
    out = tmp_path / "out"
    done = subprocess.run(
        asked(photographs, out, "overlap", "--epochs-factor", 0.25, "--json"),
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {run.recipe.epochs for run in read_results(out / "results.jsonl")} == {2.0}
    assert not table(out).keys() & table(undisturbed).keys()
    report = (out / "report.md").read_text()
    assert "Runs take 0.25 times the epochs of the scale." in report
    assert "--epochs-factor 0.25" in report


def test_the_last_epoch_of_another_length_is_tested():
    for factor in (0.1, 0.4, 3):
        for claim in scale_epochs(make_claims(NIGHT), factor):
            for arm in (claim.first, claim.second):
                assert arm.recipe.epochs % arm.recipe.validate_every == 0
    (thrice, *_), (once, *_) = scale_epochs(make_claims(NIGHT), 3), make_claims(NIGHT)
    assert thrice.first.recipe.epochs == 3 * once.first.recipe.epochs
    assert thrice.first.recipe.milestones == once.first.recipe.milestones


def test_a_report_of_what_is_there_trains_nothing(photographs, undisturbed, environment):
    """Beside a command at work; of claims whose runs are there, and of those that have none."""
    before = (undisturbed / "results.jsonl").read_bytes()
    with lock_results(undisturbed):
        done = subprocess.run(
            asked(photographs, undisturbed, *FEW, "towers", "relu", "--report-only", "--json"),
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (undisturbed / "results.jsonl").read_bytes() == before
    seeds = {claim["name"]: claim["seeds"] for claim in json.loads(done.stdout)["claims"]}
    assert seeds == {"overlap": 2, "lrn-alpha": 2, "towers": 0, "towers-full": 0, "relu": 0}
    assert "no finished pair of runs" in (undisturbed / "report.md").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [(["--budget", "1h"], "has no results.jsonl"), (["--dry-run"], "nothing is planned"),
     ([], "has no results.jsonl"), (["--budget", "1h", "--seeds", 3], "chooses the seeds"),
     (["--budget", "1h", "--epochs-factor", 2], "chooses the seeds")],
)  # fmt: skip
def test_what_cannot_be_reported_is_said_before_anything_is_read(more, told, command, tmp_path):
    done = command("claims", "overlap", "--report-only", "--out", tmp_path, *more)
    assert done.returncode == 1
    assert told in done.stderr
    assert not [*tmp_path.iterdir()]


def test_a_plan_without_runs_says_so(command, tmp_path):
    done = command("claims", "counts", "--dry-run", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "Nothing to train: what was named is computed.\n")
    done = command("claims", "counts", "--dry-run", "--json", "--out", tmp_path / "out")
    assert json.loads(done.stdout)["runs"] == 0
    assert not (tmp_path / "out").exists()


def test_two_commands_do_not_share_a_folder(photographs, undisturbed, environment):
    with lock_results(undisturbed):
        second = subprocess.run(
            asked(photographs, undisturbed, "overlap"),
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
    assert second.returncode == 1
    assert "Another command runs claims in" in second.stderr


@LONG
def test_the_whole_grid_in_miniature(photographs, tmp_path, environment):
    """Every claim of the paper, trained on 36 photographs."""
    out = tmp_path / "out"
    done = subprocess.run(
        asked(photographs, out, "--json"), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(claim["seeds"] == 2 for claim in found["claims"])
    assert {claim["verdict"] for claim in found["claims"]} <= {
        "holds", "holds in direction only", "no effect larger than x", "not seen at this scale",
        "reversed",
    }  # fmt: skip
    names = {check["name"] for check in found["checks"]}
    assert names == {"counts", "dropout-identity", "ensemble"}
    names = {claim["name"] for claim in found["claims"]}
    page = (out / "report.html").read_text()
    assert all(f'id="claim-{name}"' in page for name in names)
    for run in read_results(out / "results.jsonl"):
        assert run.curve or run.failed
        assert run.commit or run.versions
    relu = next(claim for claim in found["claims"] if claim["name"] == "relu")
    assert relu["ratio"]


def test_a_budget_chooses_seeds_and_epochs_once(config):
    """What was chosen is kept, so that the same command goes on with the same grid."""
    overlap = [claim for claim in make_claims(SMALL) if claim.name == "overlap"]
    (first,), _ = plan_grid(overlap, 20.0, config)
    kept = json.loads((config.out / PLANS_FILE).read_text())
    (chosen,) = kept.values()
    assert first.seeds == chosen[0] >= 2
    (name,) = kept
    (config.out / PLANS_FILE).write_text(json.dumps({name: [3, 0.5]}))
    claims, ((_, cost),) = plan_grid(overlap, 20.0, config)
    assert claims[0].seeds == 3
    assert claims[0].first.recipe.epochs == overlap[0].first.recipe.epochs / 2
    assert cost.runs == 6
    with pytest.raises(ConfigError, match="too short for these claims"):
        plan_grid(overlap, 0.01, config)


def test_without_a_budget_the_seeds_are_those_asked_for(config):
    (overlap,) = (claim for claim in make_claims(SMALL) if claim.name == "overlap")
    claims, ((name, cost),) = plan_grid([replace(overlap, seeds=4)], None, config)
    assert name == "overlap"
    assert (claims[0].seeds, cost.runs) == (4, 8)
    assert claims[0].first.recipe == overlap.first.recipe
    assert claims[0].first.spec.num_classes == 2
    assert cost.images == 8 * overlap.first.recipe.epochs * 36


def test_a_claim_has_as_many_seeds_as_it_asks_for(config):
    """A run that two of them share is made for the one that asks for more."""
    claims = {claim.name: claim for claim in make_claims(SMALL)}
    few, many = replace(claims["overlap"], seeds=2), replace(claims["pca"], seeds=4)
    planned, costs = plan_grid([few, many], None, config)
    assert [(name, cost.runs) for name, cost in costs] == [("overlap", 4), ("pca", 6)]
    tasks = list_tasks(planned, config)
    assert [task.recipe.seed for task in tasks] == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert not any("overlap/3/2" in task.arms for task in tasks if task.recipe.seed >= 2)
    night = {claim.name: claim.seeds for claim in make_claims(NIGHT)}
    assert (night["lrn"], night["pca"], night["dropout"]) == (5, 10, 14)
    assert NIGHT.more_seeds.keys() <= night.keys()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_what_a_begun_run_has_behind_it_is_not_counted_again(config, share):
    """At 1 it is trained, and asked for another measure of the same network."""
    (overlap,) = (claim for claim in make_claims(SMALL) if claim.name == "overlap")
    claims, ((_, whole),) = plan_grid([overlap], None, config)
    begun, *_ = list_tasks(claims, config)
    begun.folder.mkdir(parents=True)
    epochs = share * begun.recipe.epochs
    (begun.folder / "metrics.jsonl").write_text(json.dumps({"epoch": epochs, "loss": 1.0}) + "\n")
    _, ((_, left),) = plan_grid([overlap], None, config)
    assert left.runs == whole.runs
    assert left.images == whole.images - epochs * 36


def test_a_budget_is_laid_out_by_whole_runs(config, monkeypatch):
    """Seeds that fit are counted by what a run costs, not by what is left of the first."""
    claims = [replace(c, seeds=1) for c in make_claims(SMALL) if c.name == "overlap"]
    # Measured speeds would move the choice from one call to the next.
    speed = Speed(start=0.0, step=1.0, test=1.0)
    monkeypatch.setattr(grid, "measure_speeds", lambda tasks, _: {t.spec: speed for t in tasks})
    _, ((_, a_seed),) = plan_grid(claims, None, config)
    within = 3.5 * a_seed.seconds
    (asked,), ((_, whole),) = plan_grid(claims, within, config)
    assert asked.seeds == 3
    for task in list_tasks([replace(asked, seeds=1)], config):
        task.folder.mkdir(parents=True)
        line = json.dumps({"epoch": task.recipe.epochs, "loss": 1.0})
        (task.folder / "metrics.jsonl").write_text(line + "\n")
    (config.out / PLANS_FILE).unlink()
    (asked,), ((_, left),) = plan_grid(claims, within, config)
    assert asked.seeds == 3
    assert left.seconds < whole.seconds


def test_a_budget_holds_where_the_runs_that_choose_a_rate_keep_their_length(config, monkeypatch):
    """Those of `relu` take 3 passes, whatever part of 45 the others have."""
    (relu,) = (claim for claim in make_claims(SMALL) if claim.name == "relu")
    speed = Speed(start=0.0, step=10.0, test=0.0)
    monkeypatch.setattr(grid, "measure_speeds", lambda tasks, _: {t.spec: speed for t in tasks})
    _, ((_, two_seeds),) = plan_grid([replace(relu, seeds=2)], None, config)
    for share in (0.5, 0.7, 0.9):
        within = share * two_seeds.seconds
        (asked,), ((_, cost),) = plan_grid([relu], within, config)
        assert asked.seeds == 2
        assert 0.8 * within < cost.seconds <= within
        assert asked.first.trial_epochs == relu.first.trial_epochs
        (config.out / PLANS_FILE).unlink()


def test_a_plan_is_not_taken_for_other_runs_of_the_same_claims(config):
    """Another scale, another length, other images: each has a plan of its own."""
    kept = {}
    for claims in (make_claims(SMALL), make_claims(NIGHT), scale_epochs(make_claims(SMALL), 2)):
        some = [claim for claim in claims if claim.name == "overlap"]
        assert recall_budget(some, 3600, config) is None
        (asked,), _ = plan_grid(some, 3600, config)
        seeds, share = kept[asked.first.recipe.epochs] = recall_budget(some, 3600, config)
        assert (asked,) == apply_budget(with_num_classes(some, 2), seeds, share)
    assert len(json.loads((config.out / PLANS_FILE).read_text())) == len(kept) == 3
    assert recall_budget(some, 1800, config) is None


def test_a_rate_is_chosen_by_runs_of_the_same_images(config):
    """Results of two data sets in one file: the other's best rate is not this one's."""
    (relu,) = (claim for claim in make_claims(SMALL) if claim.name == "relu")
    (relu,) = with_num_classes([relu], 2)
    made = [
        result(replace(arm, recipe=arm.trial_recipe(lr)), TUNING_SEED, (), epochs_to_25=lr * sign)
        for arm in (relu.first, relu.second)
        for sign in (-1, 1)
        for lr in arm.learning_rates
    ]  # the largest rate is best of the first, the smallest of the second
    prints = ["another", config.data.manifest.fingerprint]
    half = len(relu.first.learning_rates)
    for number, one in enumerate(made):
        data = {**one.data, "fingerprint": prints[number // half % 2]}
        append_result(config.out / "results.jsonl", replace(one, data=data))
    (chosen,), _ = gather_results([relu], read_results(config.out / "results.jsonl"), config)
    assert chosen.first.recipe.lr == min(relu.first.learning_rates)
    assert chosen.second.recipe.lr == min(relu.second.learning_rates)


@LONG
def test_a_report_of_a_budget_is_of_what_it_chose(photographs, tmp_path, environment):
    """The same budget finds its runs again; without it they are said to be there."""
    out = tmp_path / "out"
    words = [*map(str, (*CLAIMS, "overlap", "--data", photographs, "--out", out, "--workers", 2))]

    def asks(*more):
        return subprocess.run([*words, *more], env=environment, capture_output=True, text=True)

    plan = asks("--dry-run", "--json", "--budget", "1h")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["runs"] == 2 * MAX_SEEDS
    (name,) = json.loads((out / PLANS_FILE).read_text())
    (out / PLANS_FILE).write_text(json.dumps({name: [2, 0.1]}))
    done = asks("--json", "--budget", "1h")
    assert done.returncode == 0, done.stderr
    assert "--seeds 2 --epochs-factor 0.1" in (out / "report.md").read_text()
    again = asks("--json", "--budget", "1h", "--report-only")
    assert json.loads(again.stdout) == json.loads(done.stdout)
    other = asks("--report-only")
    assert "4 of the 4 runs in results.jsonl are not asked for" in other.stdout + other.stderr
    unknown = asks("--budget", "2h", "--report-only")
    assert unknown.returncode == 1
    assert "this budget has begun" in unknown.stderr


@pytest.fixture
def config(prepared, tmp_path):
    return GridConfig(data=prepared, out=tmp_path, workers=1)


def test_a_part_of_a_source_is_even_over_its_classes(photographs):
    source = open_source(photographs)
    part = take_part(source, (20, 8))
    assert {name: len(listing) for name, listing in part.splits.items()} == {"train": 20, "test": 8}
    assert [sum(part.splits["train"].labels == label) for label in (0, 1)] == [10, 10]
    assert part.fingerprint() == take_part(source, (20, 8)).fingerprint() != source.fingerprint()
    assert take_part(source, None) is source


def test_the_list_needs_no_data_and_no_torch(command):
    done = command("claims", "--list", "relu", "counts", "--json")
    assert done.returncode == 0, done.stderr
    names = [claim["name"] for claim in json.loads(done.stdout)["claims"]]
    assert names == ["relu", "counts"]
    asked = "import alexnet.claims.experiments, sys; print('torch' in sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "False"
