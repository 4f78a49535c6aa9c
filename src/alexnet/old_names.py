"""Names of fields and values until 2026-11-26, in files and in ``--set``: read, never written.

Two checksums are of the names themselves, those of features and of the runs of claims. They go on
being taken of the old names, so that what was made before is still recognised.
"""

from dataclasses import fields, is_dataclass
from typing import Any

CLASSES = {  # name now -> name then
    "WithinChannelLRN": "SameMapNorm",
    "PixelFormat": "Pixels",
    "DropoutSpec": "Dropout",
}
# By the class that has them now: name then -> name now.
FIELDS: dict[str, dict[str, str]] = {
    "Spec": {"image": "image_size", "channels": "in_channels", "classes": "num_classes"},
    "Conv": {
        "maps": "out_channels",
        "kernel": "kernel_size",
        "overhang": "asymmetric_padding",
        "sees": "grouped",
        "shared": "locally_connected",
        "same_map_norm": "within_channel_lrn",
    },
    "Pool": {"window": "kernel_size", "ceil": "ceil_mode"},
    "LRN": {"alpha_over_n": "alpha"},
    "WithinChannelLRN": {"alpha_over_n": "alpha"},
    "PixelFormat": {"channels": "channel_order"},
    "Recipe": {
        "drops": "milestones",
        "max_drops": "max_reductions",
        "colour_noise": "pca_jitter",
        "colour_noise_until": "pca_jitter_until",
        "colour_noise_divisor": "pca_jitter_divisor",
        "colour_axes": "pca_axes",
        "test_views": "test_crops",
        "max_damaged": "max_corrupt",
    },
    "RunResult": {"capped": "censored"},
}
# By the field's name then: value then -> value now.
VALUES: dict[str, dict[Any, Any]] = {
    "sees": {"all": False, "tower": True},
    "shared": {True: False, False: True},
    "order": {"same_map_norm": "within_channel_lrn"},
    "schedule": {"drops": "milestones"},
}


def renamed(kind: type, name: str, value: Any) -> tuple[str, Any]:
    """Return a field's name and value as they are called now."""
    new = FIELDS.get(kind.__name__, {}).get(name, name)
    return new, _translated(value, VALUES.get(name, {}))


def renamed_layer(name: str) -> str:
    """Return the name of a network's layer as it is now: ``within_channel_lrn2``, ``pad1``."""
    return name.replace("same_map_norm", "within_channel_lrn").replace("overhang", "pad")


def dict_with_old_names(value: Any) -> Any:
    """Return what `dataclasses.asdict` made of a value before the names changed."""
    if is_dataclass(value):
        return {name: dict_with_old_names(member) for name, member in _old_fields(value)}
    if isinstance(value, tuple):
        return tuple(map(dict_with_old_names, value))
    return value


def repr_with_old_names(value: Any) -> str:
    """Return what `repr` made of a value before the names changed."""
    if is_dataclass(value):
        members = (f"{name}={repr_with_old_names(member)}" for name, member in _old_fields(value))
        name = type(value).__name__
        return f"{CLASSES.get(name, name)}({', '.join(members)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(repr_with_old_names, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _old_fields(value: Any) -> list[tuple[str, Any]]:
    old = {new: old for old, new in FIELDS.get(type(value).__name__, {}).items()}
    found = []
    for field in fields(value):
        name = old.get(field.name, field.name)
        values = {now: then for then, now in VALUES.get(name, {}).items()}
        found.append((name, _translated(getattr(value, field.name), values)))
    return found


def _translated(value: Any, values: dict[Any, Any]) -> Any:
    if isinstance(value, list | tuple) and values:
        return type(value)(values.get(item, item) for item in value)
    return values.get(value, value) if isinstance(value, str | bool) else value
