"""What a network makes of images: activations by layer, stored, searched, and traced to pixels."""

from alexnet.features.excitation import TopActivation, patch, top_activating
from alexnet.features.extraction import describe, extract
from alexnet.features.images import Joined, NamedImages, Photographs
from alexnet.features.neighbours import Neighbours
from alexnet.features.outputs import activations, last_hidden, layer_names, layer_shapes
from alexnet.features.receptive import ReceptiveField, receptive_field
from alexnet.features.search import find_nearest
from alexnet.features.stored import Description, Stored, description_of, open_stored

__all__ = [
    "Description",
    "Joined",
    "NamedImages",
    "Neighbours",
    "Photographs",
    "ReceptiveField",
    "Stored",
    "TopActivation",
    "activations",
    "describe",
    "description_of",
    "extract",
    "find_nearest",
    "last_hidden",
    "layer_names",
    "layer_shapes",
    "open_stored",
    "patch",
    "receptive_field",
    "top_activating",
]  # fmt: skip
