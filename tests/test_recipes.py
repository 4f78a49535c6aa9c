"""Recipes are values that refuse what cannot work."""

import re

import pytest

from alexnet.cli.train import TrainRequest
from alexnet.errors import ConfigError
from alexnet.recipes import FAST, FAST_GPU, PAPER, RECIPES, LayerDecay, recipe_named
from alexnet.training.optimizer import learning_rates_at


def test_the_paper_is_as_printed():
    """Section 5."""
    assert (PAPER.batch_size, PAPER.momentum, PAPER.weight_decay) == (128, 0.9, 5e-4)
    assert (PAPER.lr, PAPER.epochs, PAPER.max_reductions, PAPER.schedule) == (
        0.01,
        90,
        3,
        "plateau",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"batch_size": 0},
        {"momentum": 1},
        {"epochs": -1},
        {"crop_area": 2},
        {"seed": -1},
        {"epochs": float("inf")},
        {"weight_decay": -1},
        {"threads": 0},
        {"threads": 10**20},
        {"batch_size": 10**14},
        {"batch_size": 1.5},
        {"weight_decay": float("inf")},
        {"milestones": (0.5, float("nan"))},
        {"conv1_frozen_from": float("nan")},
        {"lr": "0.1"},
        {"weight_decays": (LayerDecay(name="fc6", decay=0.1),), "spike": 1},
    ],
)
def test_values_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        PAPER.with_(**wrong)


def test_an_unknown_setting_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'momentum'"):
        PAPER.with_(momentun=0.5)
    with pytest.raises(ConfigError, match="Did you mean 'as_run'"):
        recipe_named("asrun")


def test_the_recipe_of_a_gpu_scales_the_papers_rate_with_its_batch():
    """Facts 3b: twice the batch at twice the rate; all else is that of `fast`."""
    scale = FAST_GPU.batch_size / PAPER.batch_size
    assert FAST_GPU.lr / PAPER.lr == scale == 2
    assert FAST_GPU.with_(name="fast", batch_size=FAST.batch_size, lr=FAST.lr) == FAST
    assert learning_rates_at(FAST_GPU, FAST_GPU.warmup / 2).weights == pytest.approx(
        FAST_GPU.lr / 2
    )
    assert learning_rates_at(FAST_GPU, FAST_GPU.warmup).weights == FAST_GPU.lr


@pytest.mark.parametrize("field", ["epochs", "batch_size"])
def test_the_help_tells_the_defaults_that_the_recipes_have(field):
    written = re.search(rf"\n    {field}\n +(.*?)\n    \w", TrainRequest.__doc__, re.DOTALL)[1]
    told = {
        name: float(number)
        for names, number in re.findall(r"([\w, \n-]+): (\d+)", written)
        for name in re.sub(r"\s", "", names).split(",")
    }
    for name, recipe in RECIPES.items():
        assert told.get(name, told.get("asrun")) == getattr(recipe, field), name
