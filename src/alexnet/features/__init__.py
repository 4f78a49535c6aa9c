"""What a network makes of images: activations by layer, stored, searched, and traced to pixels."""

from alexnet.features.extraction import (
    Description,
    JoinedSplits,
    NamedImages,
    Photographs,
    SampledSplit,
    StoredFeatures,
    describe,
    extract,
    open_stored,
    read_stored,
)
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
    keep_strongest,
    patch,
    top_activating,
)

__all__ = [
    "Description", "JoinedSplits", "NamedImages", "Neighbours", "Photographs", "ReceptiveField",
    "SampledSplit", "StoredFeatures", "TopActivation", "activations", "describe", "extract",
    "find_nearest", "keep_strongest", "last_hidden", "layer_names", "layer_shapes", "open_stored",
    "patch", "read_stored", "receptive_field", "top_activating",
]  # fmt: skip
