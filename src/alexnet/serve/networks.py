"""The run's network with its switches thrown, as functions of prepared images."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from alexnet.data.augment import iter_crops as views_of
from alexnet.errors import did_you_mean
from alexnet.features import layer_shapes, receptive_field
from alexnet.fused import fuse
from alexnet.layers import Dropout, LocalResponseNorm, WithinChannelResponseNorm
from alexnet.network import AlexNet
from alexnet.predictor import Predictor
from alexnet.serve.refusals import Refusal

WARM = (7, 2, 32)  # sizes that the compiler sees; the first is no round number, of which it
# would make a rule
KEPT = 64  # functions: a request may name any of a million sets of layers

Forward = Callable[[Tensor], list[Tensor]]  # (N, prepared, prepared, 3) uint8 -> a result each


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
    """A trained network in the type that this machine multiplies fastest, and its relatives.

    The weights are held once, in that type; a relative is the same layers less some.
    """

    def __init__(self, model: Predictor) -> None:
        self.model = model
        self.network: AlexNet = model.network.to(model.dtype)
        self.shapes = layer_shapes(model.spec)  # of every named output, first to last
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self.fields = {name: receptive_field(model.spec, name) for name in self.shapes}
        # The same function for the same request, so that the engine runs them together.
        self.probabilities = lru_cache(KEPT)(self._probabilities)
        self.activations = lru_cache(KEPT)(self._activations)

    @property
    def fast(self) -> bool:
        """Whether batches are run by the compiled network by now."""
        return self._compiled is not None

    @property
    def mean_colour(self) -> Tensor:
        """The mean colour of the training images, ``(3,)`` uint8 RGB: what is nothing special."""
        normalise = self.model.normalise
        mean = normalise.mean.mean((0, 2, 3)) / normalise.scale
        return mean.round().clamp(0, 255).to(torch.uint8).cpu()

    def check(self, name: str) -> None:
        """See that there is an output of that name.

        Raises
        ------
        Refusal
            404 where there is none.
        """
        if name not in self.shapes:
            raise Refusal(404, f"No layer is called {name!r}.", did_you_mean(name, self.shapes))

    def compile(self) -> str:
        """Compile the network, for batches of any size; return why it is not, or nothing.

        It takes some seconds to a minute, while the plain form answers, and is worth a fifth of
        the time of a batch on a processor (docs/serving.md).
        """
        works, complaint = self.model.device.can_compile()
        if works:
            compiled = torch.compile(fuse(self.network), dynamic=True)
            try:
                for images in WARM:
                    shape = (images, self.model.resize_to, self.model.resize_to, 3)
                    black = torch.zeros(shape, dtype=torch.uint8)
                    with torch.inference_mode():
                        (view,) = self._views(black, Switches(), 1)
                        torch._dynamo.mark_dynamic(view, 0)
                        compiled(view)
            except Exception as error:  # whatever the tool chain raises
                return f"The network could not be compiled ({type(error).__name__})."
            self._compiled = compiled
        return complaint

    def filters(self, name: str) -> Tensor:
        """Return a convolution's weights, ``(maps, sees, k, k)`` float32.

        Raises
        ------
        Refusal
            404 where the layer is no convolution with shared weights.
        """
        self.check(name)
        layer = self.network.get_submodule(name)
        if not isinstance(layer, nn.Conv2d):
            known = [n for n, x in self.network.named_children() if isinstance(x, nn.Conv2d)]
            raise Refusal(404, f"{name} has no filters to draw.", did_you_mean(name, known))
        return layer.weight.detach().float().cpu()

    def _layers(self, switches: Switches) -> list[tuple[str, nn.Module]]:
        return [(n, layer) for n, layer in self.network.named_children() if switches.keeps(layer)]

    def _probabilities(self, switches: Switches, views: int) -> Forward:
        """Return the function from images to class probabilities, ``(classes,)`` float32 each."""
        plain = fuse(nn.Sequential(OrderedDict(self._layers(switches))))
        as_trained = switches.lrn and switches.dropout_scale

        @torch.inference_mode()
        def forward(images: Tensor) -> list[Tensor]:
            compiled = self._compiled if as_trained and len(images) > 1 else None
            layers = plain if compiled is None else compiled
            total = torch.zeros(len(images), self.model.spec.num_classes)
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
        images = images.to(self.model.device.torch)
        for view in views_of(images, self.model.spec.image_size, count):
            turned = view.flip(3) if switches.mirror else view
            pixels = self.model.normalise(turned).to(self.model.dtype)
            yield pixels.contiguous(memory_format=torch.channels_last)
