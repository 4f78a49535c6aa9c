"""Claims with made-up results, of every kind that a report must show. The numbers mean nothing."""

from dataclasses import replace

import numpy as np

from alexnet.claims.claim import TUNING_SEED, Arm, Check, CheckRow, Claim, CurvePoint, RunResult
from alexnet.recipes import CIFAR
from alexnet.variants import CIFAR_LOCAL, CIFAR_QUICK, without_lrn

HOSTILE = "<script>alert('x')</script> & a|b `c` \"d\""
PLAIN = CIFAR.with_(epochs=40, weight_decay=0.0)
RELU = Arm(
    name="ReLU",
    spec=CIFAR_QUICK,
    recipe=PLAIN.with_(lr=0.004),
    learning_rates=(0.001, 0.004, 0.016),
)
TANH = Arm(
    name="tanh",
    spec=replace(CIFAR_QUICK, activation="tanh"),
    recipe=PLAIN.with_(lr=0.001),
    learning_rates=(0.001, 0.004, 0.016),
)
WITH = Arm(name="with LRN", spec=CIFAR_LOCAL, recipe=CIFAR)
WITHOUT = Arm(name="without LRN", spec=without_lrn(CIFAR_LOCAL), recipe=CIFAR)
DECAYED = replace(WITHOUT, name="without, as in 2012", recipe=CIFAR.with_(epochs=100))

FIGURE_1 = Claim(
    name="relu", group="relu", section="3.1",
    sentence="A network with ReLUs reaches 25 % training error on CIFAR-10 six times sooner than "
    "the same network with tanh units.",
    paper="6 times, a four-layer network on CIFAR-10",
    first=TANH, second=RELU, switch="the activation", varied=frozenset({"spec.activation"}),
    measure="epochs_to_25", measure_text="passes over the images until 25 % training error",
    is_fraction=False, ratio=True, paper_effect=6.0, min_effect=3.0, seeds=5,
)  # fmt: skip
LRN = Claim(
    name="lrn", group="lrn", section="3.3",
    sentence="Local response normalisation lowers the test error.",
    paper="13 % to 11 % on CIFAR-10, with three other things changed",
    first=WITHOUT, second=WITH, switch="the normalisation of conv1 and conv2",
    varied=frozenset({"spec.convs.norm"}), paper_effect=0.02, min_effect=0.01, seeds=5,
)  # fmt: skip
CONFOUNDED = replace(
    LRN, name="lrn-confounded", first=DECAYED, confounded=True,
    note="The paper's pair also differs in the width of local3, in a weight decay and in length.",
)  # fmt: skip
GAP = replace(
    LRN, name="gap", section="4.2", measure="gap", measure_text="test error less training error",
    sentence="Dropout reduces overfitting.", paper="no number", paper_effect=None, min_effect=None,
)  # fmt: skip
VIEWS = replace(
    LRN, name="views", sentence="Nine views are better than one.", paper_effect=0.03,
    min_effect=0.02, first=replace(WITH, name="one view"),
    second=replace(WITH, name="nine views", measure="test_error_10_views"),
    switch="how many views are averaged", varied=frozenset({"measure"}),
)  # fmt: skip
ONE_SEED = replace(LRN, name="one-seed", sentence="Asked with one seed.")
NEVER = replace(LRN, name="never-run", sentence="Not asked yet.", first=replace(
    WITHOUT, recipe=CIFAR.with_(epochs=7)))  # fmt: skip
COUNTS = Check(
    name="counts", section="3.5", sentence="The network has 60 million parameters.",
    rows=(
        CheckRow(what="parameters", stated="60 million", ours="60,965,224", agrees=True),
        CheckRow(what="conv1, neurons", stated="253,440", ours="290,400", agrees=False,
            note="the paper's figure multiplies 55 by 48"),
    ),
)  # fmt: skip


def curve(
    end: float, speed: float, epochs: int, random: np.random.Generator
) -> tuple[CurvePoint, ...]:
    """Return a curve that falls from 0.9 to `end`, sooner with a higher speed, with some noise."""
    made = []
    for epoch in range(1, epochs + 1):
        error = end + (0.75 - end) * np.exp(-epoch * speed) + random.normal(0, 0.004)
        made.append(
            CurvePoint(epoch=epoch, loss=error * 3, train_error=error, test_error=error * 0.7 + 0.1)
        )
    return tuple(made)


def result(
    arm: Arm, seed: int, line: tuple[CurvePoint, ...], censored=(), **measures: float
) -> RunResult:
    return RunResult(
        key=f"{arm.name}-{seed}-{arm.recipe.lr}", arms=(arm.name,), seed=seed, spec=arm.spec,
        recipe=replace(arm.recipe, seed=seed), seconds=312.5, commit="0123abc", curve=line,
        data={"name": HOSTILE, "fingerprint": "9f2c11aa", "train": 50000, "test": 10000},
        machine="Some processor, 2 cores", versions={"alexnet": "0.4", "torch": "2.13"},
        measures=measures, censored=censored,
    )  # fmt: skip


def figure_1_results(random: np.random.Generator, seeds: int = 5) -> list[RunResult]:
    """Return runs of which two of tanh were stopped at 40 epochs."""
    made = []
    for seed in range(seeds):
        slow, soon = float(random.normal(38, 1)), float(random.normal(6.5, 0.4))
        stopped = seed in (1, 3)
        slow = 40.0 if stopped else min(slow, 39.5)
        made += [
            result(TANH, seed, curve(0.05 + 0.05 * stopped, 1.18 / slow, 40, random),
                   ("epochs_to_25",) * stopped, epochs_to_25=slow),
            result(RELU, seed, curve(0.02, 1.15 / soon, 20, random), epochs_to_25=soon),
        ]  # fmt: skip
    for arm, tried in ((TANH, (37.0, 38.5, 40.0)), (RELU, (12.0, 7.0, 9.0))):
        for lr, epochs in zip(arm.learning_rates, tried, strict=True):
            tuned = replace(arm, recipe=arm.recipe.with_(lr=lr))
            short = (CurvePoint(epoch=1, loss=1.0, train_error=epochs / 100),)
            made.append(result(tuned, TUNING_SEED, short, epochs_to_25=epochs))
    return made


def paired(
    first: Arm, second: Arm, effect: float, random: np.random.Generator, seeds: int = 5
) -> list[RunResult]:
    """Return runs whose test errors differ by about `effect`."""
    made = []
    for seed in range(seeds):
        base = 0.14 + random.normal(0, 0.006)
        for arm, error in ((first, base + effect + random.normal(0, 0.002)), (second, base)):
            made.append(
                result(arm, seed, curve(error - 0.08, 0.2, 30, random), test_error=error,
                       test_error_10_views=error - random.normal(0.015, 0.002), gap=error - 0.05)
            )  # fmt: skip
    return made


def everything(effect: float = 0.014) -> tuple[list[Claim | Check], list[RunResult]]:
    """Return claims of every kind, and results for all but one of them."""
    random = np.random.default_rng(7)
    one = replace(ONE_SEED, first=replace(WITHOUT, recipe=CIFAR.with_(epochs=12)),
                  second=replace(WITH, recipe=CIFAR.with_(epochs=12)))  # fmt: skip
    not_seen = replace(LRN, name="pca", sentence="Noise along the axes of colour helps.",
                       first=replace(WITHOUT, recipe=CIFAR.with_(pca_jitter=0.0, epochs=70)),
                       second=replace(WITH, recipe=CIFAR.with_(epochs=70)))  # fmt: skip
    unclear = replace(not_seen, name="pca-two", sentence="Asked with two seeds.",
                      first=replace(WITHOUT, recipe=CIFAR.with_(pca_jitter=0.0, epochs=60)),
                      second=replace(WITH, recipe=CIFAR.with_(epochs=60)))  # fmt: skip
    reversed_ = replace(not_seen, name="overlap", sentence="Overlapping pooling helps.",
                        first=replace(WITHOUT, recipe=CIFAR.with_(epochs=50)),
                        second=replace(WITH, recipe=CIFAR.with_(epochs=51)))  # fmt: skip
    claims = [
        FIGURE_1,
        LRN,
        CONFOUNDED,
        GAP,
        VIEWS,
        not_seen,
        unclear,
        reversed_,
        one,
        NEVER,
        COUNTS,
    ]
    results = [
        *figure_1_results(random),
        *paired(WITHOUT, WITH, effect, random),
        *paired(DECAYED, WITH, 0.02, random)[::2],
        *paired(not_seen.first, not_seen.second, 0.0, random),
        *paired(unclear.first, unclear.second, 0.0, random, seeds=2),
        *paired(reversed_.first, reversed_.second, -0.01, random),
        *paired(one.first, one.second, 0.02, random, seeds=1),
    ]
    return claims, results
