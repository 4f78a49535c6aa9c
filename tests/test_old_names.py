"""Checksums of names are those of the version of 2026-11-26, which made the ones below."""

import hashlib

import pytest

from alexnet.claims.claim import run_key
from alexnet.old_names import renamed, repr_with_old_names
from alexnet.recipes import FAST
from alexnet.spec import Conv
from alexnet.variants import NETWORKS

MADE_THEN = {  # of repr(spec), and of a run of claims with the recipe `fast` on data "x"
    "single": ("9dbc1577cf87", "da2eed6c924a92d8"),
    "paper": ("877c3fb9f21d", "84ce057117de71ed"),
    "as_run": ("2df28d7aab25", "aed767943f8613db"),
    "caffe": ("22401cfde93d", "7c5f7e41e5743861"),
    "caffenet": ("f376bc43e5f3", "d3b2aeb4bdea7ac5"),
    "torchvision": ("cbae9e91e55a", "3c64e9607f3755f4"),
    "cifar_quick": ("b45e54f6d9d8", "78dd561b56da7efb"),
    "cifar_local": ("4b4e9fb19a07", "05974fb000d44048"),
}


@pytest.mark.parametrize("name", MADE_THEN)
def test_what_was_stored_is_recognised(name):
    spec, (of_spec, of_run) = NETWORKS[name], MADE_THEN[name]
    assert hashlib.sha256(repr_with_old_names(spec).encode()).hexdigest()[:12] == of_spec
    assert run_key(spec, FAST, "x") == of_run


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
