"""The run's network as functions of batches of images, which the engine runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.data.imagenet import describe_classes
from alexnet.errors import did_you_mean
from alexnet.explain.attribution import attribute, make_question
from alexnet.features import layer_shapes, receptive_field
from alexnet.predictor import Predictor, Switches
from alexnet.serve.admission import HTTPError

WARM_UP = (7, 2, 32)  # batches that the compiler sees; a round number first would become a rule
CELLS = 46  # along a side of an explanation: of 5 pixels each in views of 227
KEPT = 64  # functions: a request may name any of a million sets of layers


class Networks:
    """A predictor as batch functions, and what its network consists of.

    The functions of `probabilities` and `activations` are the same for the same arguments, so that
    the engine runs requests together that ask for the same.
    """

    def __init__(self, predictor: Predictor) -> None:
        predictor.network.to(predictor.dtype)  # the weights are held once
        self.predictor = predictor
        self.class_names = describe_classes(predictor.classes)  # as people read them
        self.shapes = layer_shapes(predictor.spec)  # of every named output, first to last
        self.fields = {name: receptive_field(predictor.spec, name) for name in self.shapes}
        mean = predictor.normalise.mean.mean((0, 2, 3)) / predictor.normalise.scale
        # Of the training images, (3,) uint8 RGB: what is nothing special.
        self.mean_colour = mean.round().clamp(0, 255).to(torch.uint8).cpu()
        self.probabilities = lru_cache(KEPT)(self._probabilities)
        self.activations = lru_cache(KEPT)(self._activations)
        self.attributions = lru_cache(KEPT)(self._attributions)
        self._compiled: Predictor | None = None
        # Kernels are built at the first call on a machine: no request is to wait for a compiler.
        # Two images are run by others than one is.
        for images in (1, 2):
            self.predictor.probabilities(self._black(images))

    @property
    def is_compiled(self) -> bool:
        """Whether batches are run by the compiled network by now."""
        return self._compiled is not None

    def check(self, layer: str, unit: int = 0) -> None:
        """See that there is an output of that name, and a unit of that number; else 404."""
        if layer not in self.shapes:
            fix = did_you_mean(layer, self.shapes)
            raise HTTPError(404, f"No layer is called {layer!r}.", fix)
        units = self.shapes[layer][0]
        if not 0 <= unit < units:
            raise HTTPError(404, f"{layer} has no unit {unit}.", f"Its units are 0 to {units - 1}.")

    def get_filters(self, layer: str) -> tuple[Tensor, bool]:
        """Return a convolution's weights, and whether they are of the three colours of pixels.

        The weights are ``(filters, channels, k, k)`` float32, colours in the order of RGB; 404
        where the layer is no convolution with shared weights.
        """
        self.check(layer)
        network, spec = self.predictor.network, self.predictor.spec
        found = network.get_submodule(layer)
        if not isinstance(found, nn.Conv2d):
            known = [n for n, x in network.named_children() if isinstance(x, nn.Conv2d)]
            raise HTTPError(404, f"{layer} has no filters to draw.", did_you_mean(layer, known))
        weight = found.weight.detach().float().cpu()
        is_coloured = weight.shape[1] == spec.in_channels == 3
        is_bgr = is_coloured and self.predictor.normalise.bgr
        return weight.flip(1) if is_bgr else weight, is_coloured

    def compile(self) -> str:
        """Compile the network, for batches of any size; return why it is not, or nothing.

        It takes some seconds to a minute, while the plain form answers.
        """
        predictor = self.predictor
        if not predictor.device.gains_by_compiling(predictor.dtype):
            return ""
        works, complaint = predictor.device.can_compile()
        if works:
            compiled = torch.compile(predictor.fast_network, dynamic=True)
            try:
                with torch.inference_mode():
                    for images in WARM_UP:
                        pixels = predictor.centre_crops(self._black(images))
                        torch._dynamo.mark_dynamic(pixels, 0)
                        compiled(pixels)
            except Exception as error:  # whatever the tool chain raises
                return f"The network could not be compiled ({type(error).__name__})."
            self._compiled = replace(predictor, forward=compiled)
        return complaint

    def _black(self, images: int) -> Tensor:
        side = self.predictor.resize_to
        return torch.zeros((images, side, side, 3), dtype=torch.uint8)

    def _probabilities(self, switches: Switches, views: int) -> Callable[[Tensor], list[Tensor]]:
        """Return the function from images to class probabilities, ``(classes,)`` float32 each."""
        as_trained = switches.lrn and switches.dropout_scale

        def run(images: Tensor) -> list[Tensor]:
            compiled = self._compiled if as_trained and len(images) > 1 else None
            predictor = compiled or self.predictor
            return list(predictor.probabilities(images, views, switches).cpu().unbind())

        return run

    def _activations(
        self, switches: Switches, names: tuple[str, ...]
    ) -> Callable[[Tensor], list[dict[str, Tensor]]]:
        """Return the function from images to the named outputs of the centre view, float32 each."""

        def run(images: Tensor) -> list[dict[str, Tensor]]:
            found = self.predictor.activations(images, names, switches)
            return [{name: found[name][i] for name in names} for i in range(len(images))]

        return run

    def _attributions(
        self, switches: Switches, method: str, target: int
    ) -> Callable[[Tensor], list[Tensor]]:
        """Return the function from images to how their pixels speak for a class, as cells.

        ``(cells, cells)`` float32 each, at most `CELLS`: the mean of the pixels of each.
        """

        def run(images: Tensor) -> list[Tensor]:
            found = []
            for image in images:
                question = make_question(self.predictor, image, target, switches=switches)
                whole = torch.from_numpy(attribute(self.predictor, question, method))
                size = -(-len(whole) // CELLS)
                found.append(F.avg_pool2d(whole[None], size, ceil_mode=True)[0])
            return found

        return run
