"""The run's network with its switches thrown, as functions of prepared images."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from alexnet import device as devices
from alexnet.data.augment import iter_crops
from alexnet.errors import did_you_mean
from alexnet.features import layer_shapes, receptive_field
from alexnet.fused import fuse
from alexnet.layers import Dropout, LocalResponseNorm, WithinChannelResponseNorm
from alexnet.predictor import Predictor
from alexnet.serve.admission import HTTPError

WARM = (7, 2, 32)  # batches that the compiler sees; a round number first would become a rule
KEPT = 64  # functions: a request may name any of a million sets of layers


@dataclass(frozen=True, slots=True)
class Switches:
    """What is changed in the network that answers."""

    lrn: bool = True  # False: response normalisation is left out
    dropout_scale: bool = True  # False: outputs are not multiplied by 1 - rate (section 4.2)
    mirror: bool = False  # the image is mirrored left to right first

    def keeps(self, layer: nn.Module) -> bool:
        """Whether a layer of the network is run."""
        if isinstance(layer, LocalResponseNorm | WithinChannelResponseNorm):
            return self.lrn
        return self.dropout_scale or not isinstance(layer, Dropout)


class Networks:
    """A trained network, whole or less some layers, in the dtype that the machine multiplies best.

    The functions of `probabilities` and `activations` are the same for the same arguments, so that
    the engine runs requests together that ask for the same.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.network = predictor.network.to(predictor.dtype)
        self.shapes = layer_shapes(predictor.spec)  # of every named output, first to last
        self.fields = {name: receptive_field(predictor.spec, name) for name in self.shapes}
        self.probabilities = lru_cache(KEPT)(self._probabilities)
        self.activations = lru_cache(KEPT)(self._activations)
        self._compiled: Callable[[Tensor], Tensor] | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether batches are run by the compiled network by now."""
        return self._compiled is not None

    @property
    def mean_colour(self) -> Tensor:
        """The mean colour of the training images, ``(3,)`` uint8 RGB: what is nothing special."""
        normalise = self.predictor.normalise
        mean = normalise.mean.mean((0, 2, 3)) / normalise.scale
        return mean.round().clamp(0, 255).to(torch.uint8).cpu()

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
        found = self.network.get_submodule(layer)
        if not isinstance(found, nn.Conv2d):
            known = [n for n, x in self.network.named_children() if isinstance(x, nn.Conv2d)]
            raise HTTPError(404, f"{layer} has no filters to draw.", did_you_mean(layer, known))
        weight = found.weight.detach().float().cpu()
        is_coloured = weight.shape[1] == self.predictor.spec.in_channels == 3
        return weight.flip(
            1
        ) if is_coloured and self.predictor.normalise.bgr else weight, is_coloured

    def compile(self) -> str:
        """Compile the network, for batches of any size; return why it is not, or nothing.

        It takes some seconds to a minute, while the plain form answers, and is worth a fifth of
        the time of a batch on a processor (docs/serving.md).
        """
        works, complaint = devices.can_compile(self.predictor.device)
        if works:
            compiled = torch.compile(fuse(self.network), dynamic=True)
            side = self.predictor.resize_to
            try:
                for images in WARM:
                    black = torch.zeros((images, side, side, 3), dtype=torch.uint8)
                    with torch.inference_mode():
                        (view,) = self._views(black, Switches(), 1)
                        torch._dynamo.mark_dynamic(view, 0)
                        compiled(view)
            except Exception as error:  # whatever the tool chain raises
                return f"The network could not be compiled ({type(error).__name__})."
            self._compiled = compiled
        return complaint

    def _probabilities(self, switches: Switches, views: int) -> Callable[[Tensor], list[Tensor]]:
        """Return the function from images to class probabilities, ``(classes,)`` float32 each."""
        layers = [(n, x) for n, x in self.network.named_children() if switches.keeps(x)]
        plain = fuse(nn.Sequential(OrderedDict(layers)))
        as_trained = switches.lrn and switches.dropout_scale

        @torch.inference_mode()
        def forward(images: Tensor) -> list[Tensor]:
            compiled = self._compiled if as_trained and len(images) > 1 else None
            layers = plain if compiled is None else compiled
            total = torch.zeros(len(images), self.predictor.spec.num_classes)
            for view in self._views(images, switches, views):
                total += layers(view).float().softmax(1).cpu()
            return list((total / views).unbind())

        return forward

    def _activations(
        self, switches: Switches, names: tuple[str, ...]
    ) -> Callable[[Tensor], list[dict[str, Tensor]]]:
        """Return the function from images to the named outputs of the centre view, float32 each."""

        @torch.inference_mode()
        def forward(images: Tensor) -> list[dict[str, Tensor]]:
            (out,) = self._views(images, switches, 1)
            kept = {}
            for name, layer in self.network.named_children():
                out = layer(out) if switches.keeps(layer) else out
                if name in names:
                    kept[name] = out.float().cpu()
            return [{name: kept[name][i] for name in names} for i in range(len(images))]

        return forward

    def _views(self, images: Tensor, switches: Switches, count: int) -> Iterable[Tensor]:
        images = images.to(self.predictor.device)
        for view in iter_crops(images, self.predictor.spec.image_size, count):
            turned = view.flip(3) if switches.mirror else view
            pixels = self.predictor.normalise(turned).to(self.predictor.dtype)
            yield pixels.contiguous(memory_format=torch.channels_last)
