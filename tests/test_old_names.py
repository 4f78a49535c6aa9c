"""Checksums of names are those of the version of 2026-11-26, which made the ones below."""

import hashlib

import pytest

from alexnet.claims.claim import run_key
from alexnet.old_names import renamed, repr_with_old_names
from alexnet.recipes import FAST
from alexnet.spec import Conv
from alexnet.variants import NETWORKS

# Of repr(spec), and of a run of claims with the recipe `fast` on data "x", not compiled: a fast
# form changes a result by the rounding of sums alone, so it is no part of the name of a run.
MADE_THEN = {
    "single": ("9dbc1577cf87", "1f66e9e6b115d046"),
    "paper": ("877c3fb9f21d", "5acc5bb89fb7d481"),
    "as_run": ("2df28d7aab25", "b99228a91602d9ca"),
    "caffe": ("22401cfde93d", "c862ebe906571d76"),
    "caffenet": ("f376bc43e5f3", "53b3c84148dd7822"),
    "torchvision": ("cbae9e91e55a", "2bf0ff931ab4f7d6"),
    "cifar_quick": ("b45e54f6d9d8", "3fa6aab194a7aec5"),
    "cifar_local": ("4b4e9fb19a07", "ee6e5667038aaab5"),
}


@pytest.mark.parametrize("name", MADE_THEN)
def test_what_was_stored_is_recognised(name):
    spec, (of_spec, of_run) = NETWORKS[name], MADE_THEN[name]
    assert hashlib.sha256(repr_with_old_names(spec).encode()).hexdigest()[:12] == of_spec
    assert run_key(spec, FAST.with_(compile=False), "x") == of_run
    assert run_key(spec, FAST.with_(compile=True, threads=3), "x") == of_run


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("sees", "tower"), ("grouped", True)),
        (("shared", True), ("locally_connected", False)),
        (("order", ["norm", "same_map_norm"]), ("order", ["norm", "within_channel_lrn"])),
        (("stride", 4), ("stride", 4)),
        (("grouped", True), ("grouped", True)),
    ],
)
def test_names_and_values_of_then_become_those_of_now(old, new):
    assert renamed(Conv, *old) == new
