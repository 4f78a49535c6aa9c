"""What a network makes of images: activations by layer, stored, searched, and traced to pixels."""

from alexnet.features.extraction import describe, extract
from alexnet.features.images import JoinedSplits, NamedImages, Photographs
from alexnet.features.layers import (
    ReceptiveField,
    activations,
    last_hidden,
    layer_names,
    layer_shapes,
    receptive_field,
)
from alexnet.features.search import (
    Neighbours,
    TopActivation,
    find_nearest,
    patch,
    top_activating,
)
from alexnet.features.storage import Description, StoredFeatures, describe_folder, open_stored

__all__ = [
    "Description", "JoinedSplits", "NamedImages", "Neighbours", "Photographs",
    "ReceptiveField", "StoredFeatures", "TopActivation", "activations", "describe",
    "describe_folder", "extract", "find_nearest", "last_hidden", "layer_names", "layer_shapes",
    "open_stored", "patch", "receptive_field", "top_activating",
]  # fmt: skip
