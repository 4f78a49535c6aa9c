"""What a grid of runs will cost, from this machine's measured speed, and how to make it fit."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from alexnet.claims.claim import TUNING_SEED, Arm, Claim
from alexnet.claims.grid import (
    GridConfig,
    choose_learning_rates,
    iter_arms,
    iter_trials,
    make_tasks,
    map_arms,
    unfinished_tasks,
    with_num_classes,
)
from alexnet.claims.results import FILE, read_results
from alexnet.claims.runs import RunTask
from alexnet.device import Device, keep_freed_memory, use_threads
from alexnet.errors import ConfigError
from alexnet.files import atomic_write, translate_os_error
from alexnet.network import build
from alexnet.recipes import Recipe
from alexnet.spec import Spec
from alexnet.training.optimizer import learning_rates_at, make_optimizer, update

STEPS = 5  # timed, after a first one
OVERHEAD = 1.25  # time of a run over that of its training alone: starting, testing, saving
MIN_SEEDS, MAX_SEEDS = 2, 10  # a verdict needs two
MIN_EPOCHS = 2
SLOW_STEP = 0.5  # seconds
PLANS = "plans.json"  # what fitted into which budget


@dataclass(frozen=True, slots=True)
class Cost:
    """What runs are expected to take."""

    runs: int
    images: float  # trained on, all runs together
    seconds: float  # by the clock, workers at work at once

    def __str__(self) -> str:
        days = self.seconds / 86400
        took = f"{days:,.1f} days" if days >= 2 else f"{self.seconds / 60:,.0f} minutes"
        return f"{self.runs:,} runs, {self.images:,.0f} images to train on, about {took}"


def measure_speed(spec: Spec, recipe: Recipe, threads: int | None) -> float:
    """Measure how many images a second a network is trained on here: the median of some steps.

    On random pixels, with the loop's own update and type; reading images costs next to nothing.
    """
    keep_freed_memory()
    use_threads(threads)
    device = Device.best()
    dtype = device.choose_dtype(recipe.precision)
    network = device.place_network(build(spec))
    optimizer = make_optimizer(network, recipe)
    shape = (recipe.batch_size, spec.in_channels, spec.image_size, spec.image_size)
    pixels = torch.randn(shape, device=device.torch) * 60
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(spec.num_classes, (recipe.batch_size,), device=device.torch)
    times = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        with device.autocast(dtype):
            logits = network(pixels)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        update(optimizer, learning_rates_at(recipe, 0.5), recipe)
        device.synchronize()
        times.append(time.perf_counter() - begun)
    return recipe.batch_size / sorted(times[1:])[STEPS // 2]


def measure_speeds(tasks: Iterable[RunTask], threads: int | None) -> dict[Spec, float]:
    """Measure each network of some runs, or tell its speed from a like one's that is slow.

    A slow network, half a second a step, is measured once; the others of its kind are told by
    their multiplications.
    """
    found: dict[Spec, float] = {}
    slow: dict[str, tuple[Spec, float]] = {}
    for task in tasks:
        spec, recipe = task.spec, task.recipe
        if spec in found:
            continue
        if recipe.name in slow:
            like, speed = slow[recipe.name]
            found[spec] = speed * like.macs / spec.macs
            continue
        found[spec] = measure_speed(spec, recipe, threads)
        if recipe.batch_size / found[spec] > SLOW_STEP:
            slow[recipe.name] = spec, found[spec]
    return found


def plan_grid(
    claims: Iterable[Claim], seeds: int, seconds: float | None, config: GridConfig
) -> tuple[tuple[Claim, ...], int, Cost]:
    """Return the claims and seeds that are to be run, and what is left of them to do.

    With a number of seconds, the seeds and epochs that fit into them. What was chosen once is kept
    in the folder of results, so that the same command goes on with the same grid, however fast
    the machine seems to be the next time.
    """
    claims = with_num_classes(claims, len(config.data.classes))
    trials = make_tasks(iter_trials(claims), [TUNING_SEED], config)
    one = make_tasks(iter_arms(claims), [0], config)
    speeds = measure_speeds([*trials, *one], config.threads)
    if seconds is not None:
        costs = [estimate_cost(tasks, speeds, config.workers).seconds for tasks in (trials, one)]
        seeds, share = _keep_plan(config.out, claims, seconds, fit_budget(seconds, *costs))
        claims = shorten_epochs(claims, share) if share < 1 else claims
        trials = make_tasks(iter_trials(claims), [TUNING_SEED], config)
    known = read_results(config.out / FILE)
    chosen = claims if unfinished_tasks(trials, known) else choose_learning_rates(claims, known)
    left = unfinished_tasks([*trials, *make_tasks(iter_arms(chosen), range(seeds), config)], known)
    return claims, seeds, estimate_cost(left, speeds, config.workers)


def _keep_plan(
    out: Path, claims: Iterable[Claim], seconds: float, chosen: tuple[int, float]
) -> tuple[int, float]:
    """Return what was chosen for these claims and this time before, or keep what is now."""
    what = f"{seconds:g} s: {' '.join(claim.name for claim in claims)}"
    file = out / PLANS
    plans = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if what not in plans:
        plans[what] = chosen
        with translate_os_error(out):
            out.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(plans, indent=1), encoding="utf-8")
    seeds, share = plans[what]
    return int(seeds), float(share)


def estimate_cost(tasks: Sequence[RunTask], speeds: dict[Spec, float], workers: int) -> Cost:
    """Return what runs cost at measured speeds; those that end early, as if they did not."""
    seen = [task.recipe.epochs * task.images for task in tasks]
    alone = sum(n / speeds[task.spec] for n, task in zip(seen, tasks, strict=True))
    return Cost(len(tasks), sum(seen), OVERHEAD * alone / workers)


def fit_budget(seconds: float, fixed: float, a_seed: float) -> tuple[int, float]:
    """Return how many seeds fit into a time, and the share of the epochs where even two do not.

    `fixed` seconds are expected of the runs that choose learning rates, `a_seed` of every arm with
    one seed.

    Raises
    ------
    ConfigError
        When a tenth of the epochs would still be too long.

    Examples
    --------
    >>> fit_budget(1800, fixed=300, a_seed=300)
    (5, 1.0)
    >>> fit_budget(450, fixed=300, a_seed=300)
    (2, 0.5)
    """
    seeds = int((seconds - fixed) / a_seed) if a_seed else MAX_SEEDS
    if seeds >= MIN_SEEDS:
        return min(seeds, MAX_SEEDS), 1.0
    share = seconds / (fixed + MIN_SEEDS * a_seed)
    if share < 0.1:
        needed = (fixed + MIN_SEEDS * a_seed) / 600
        raise ConfigError(
            f"A budget of {seconds / 60:,.0f} minutes is too short for these claims.",
            f"Give {needed:,.0f} minutes or more, or name fewer claims.",
        )
    return MIN_SEEDS, share


def shorten_epochs(claims: Iterable[Claim], share: float) -> tuple[Claim, ...]:
    """Return claims whose runs have a share of their epochs; schedules keep their proportions."""

    def shorten(_: Claim, arm: Arm) -> Arm:
        epochs = max(MIN_EPOCHS, round(arm.recipe.epochs * share))
        often = 1.0 if epochs % arm.recipe.validate_every else arm.recipe.validate_every
        return replace(arm, recipe=arm.recipe.with_(epochs=epochs, validate_every=often))

    return map_arms(claims, shorten)
