"""What a network makes of images: activations by layer, stored, searched, and traced to pixels."""

from alexnet.features.excitation import Excitation, exciting, patch
from alexnet.features.extraction import describe, extract
from alexnet.features.images import Joined, NamedImages, Photographs
from alexnet.features.neighbours import Neighbours
from alexnet.features.outputs import activations, last_hidden, layer_names, layer_shapes
from alexnet.features.receptive import ReceptiveField, receptive_field
from alexnet.features.search import nearest
from alexnet.features.stored import Description, Stored, description_of, open_stored

__all__ = [
    "Description", "Excitation", "Joined", "NamedImages", "Neighbours", "Photographs",
    "ReceptiveField", "Stored", "activations", "describe", "description_of", "exciting", "extract",
    "last_hidden", "layer_names", "layer_shapes", "nearest", "open_stored", "patch",
    "receptive_field",
]  # fmt: skip
