"""Values survive JSON, and are changed by name or refused."""

import json
from dataclasses import asdict, replace

import pytest

from alexnet.config import differences, from_json, with_setting
from alexnet.errors import ConfigError
from alexnet.recipes import RECIPES, Recipe
from alexnet.spec import Spec
from alexnet.variants import NETWORKS, PAPER


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_a_network_survives_json(spec):
    assert from_json(Spec, json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe):
    assert from_json(Recipe, json.loads(json.dumps(asdict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("towers", "1", {"towers": (2, 1)}),
        ("activation", "tanh", {"activation": ("relu", "tanh")}),
        ("conv1.norm.k", "1", {"convs.conv1.norm.k": (2.0, 1.0)}),
        ("conv4.std", "none", {"convs.conv4.std": (0.01, None)}),
        ("dropout.rate", "0", {"dropout.rate": (0.5, 0.0)}),
        ("fc6.units", "64", {"dense.fc6.units": (4096, 64)}),
    ],
)
def test_a_setting_changes_one_field(path, text, expected):
    assert differences(PAPER, with_setting(PAPER, path, text)) == expected


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("towrs", "1", "Did you mean 'towers'"),
        ("towers", "3", "must be one of"),
        ("image", "large", "should be int"),
        ("conv9.std", "1", "No setting is called 'conv9'"),
        ("image.x", "1", "has no 'x'"),
    ],
)
def test_a_wrong_setting_is_a_sentence(path, text, message):
    with pytest.raises(ConfigError, match=message):
        with_setting(PAPER, path, text)


def test_unknown_fields_of_a_file_are_refused():
    data = asdict(replace(PAPER, name="other")) | {"colour": "blue"}
    with pytest.raises(ConfigError, match="has no field 'colour'"):
        from_json(Spec, data)
