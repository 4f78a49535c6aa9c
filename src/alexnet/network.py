"""Spec -> nn.Module: the whole network is this page, read from top to bottom.

The layers carry the paper's names, so ``network.conv1.weight`` is what it says, and a state dict
has the sixteen entries ``conv1.weight`` ... ``fc8.bias``.
"""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from alexnet.errors import ConfigError, did_you_mean
from alexnet.layers import (
    Dropout,
    LocallyConnected2d,
    LocalResponseNorm,
    SameMapResponseNorm,
)
from alexnet.spec import Conv, Pool, Spec, pool_name


class AlexNet(nn.Sequential):
    """The network of a spec: pixels ``(N, 3, image, image)`` to logits ``(N, classes)``.

    Pixels are what ``spec.pixels`` says: 0-255 less the training mean for the networks of 2012.
    """

    def __init__(self, spec: Spec) -> None:
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        maps = spec.channels
        sizes = {layer.name: layer.size for layer in spec.layers()}
        for conv in spec.convs:
            modules.update(conv_block(spec, conv, maps, sizes[conv.name]))
            maps = conv.maps
        modules["flatten"] = nn.Flatten()
        maps, side = spec.flat
        inputs = maps * side**2  # 9216 for the paper's
        for dense in spec.dense:
            modules.update(dense_block(spec, dense.name, inputs, dense.units))
            inputs = dense.units
        modules[spec.output_name] = nn.Linear(inputs, spec.classes)
        super().__init__(modules)
        self.spec = spec

    def forward(self, input: Tensor) -> Tensor:
        """Map pixels ``(N, 3, image, image)`` to one logit a class, ``(N, classes)``.

        Raises
        ------
        ConfigError
            When the images have another size or number of channels than the spec's.
        """
        wanted = (self.spec.channels, self.spec.image, self.spec.image)
        if tuple(input.shape[1:]) != wanted:
            raise ConfigError(
                f"Network {self.spec.name!r} takes images of {wanted}, these are "
                f"{tuple(input.shape[1:])}."
            )
        out: Tensor = super().forward(input)
        return out

    def activations(self, input: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Run `input` as far as needed and return the outputs of the named layers.

        Names are the layers' (``conv1``, ``fc7``: before the activation), or those of what
        follows them: ``relu1``, ``norm1``, ``pool1``, ``relu7``.
        """
        wanted, known = set(names), dict(self.named_children())
        for name in wanted - known.keys():
            raise ConfigError(f"No layer is called {name!r}.", did_you_mean(name, known))
        kept = {}
        for name, module in known.items():
            input = module(input)
            if name in wanted:
                kept[name] = input
            if len(kept) == len(wanted):
                break
        return kept


def conv_block(spec: Spec, conv: Conv, maps: int, side: int) -> dict[str, nn.Module]:
    """Return a convolution and what follows it, named and in the spec's order."""
    number = "".join(filter(str.isdigit, conv.name))
    steps: dict[str, tuple[str, nn.Module]] = {
        "activation": (f"{spec.activation}{number}", activation(spec))
    }
    if conv.norm:
        steps["norm"] = (f"norm{number}", LocalResponseNorm(conv.norm, spec.towers))
    if conv.same_map_norm:
        layer = SameMapResponseNorm(conv.same_map_norm)
        steps["same_map_norm"] = (f"same_map_norm{number}", layer)
    if conv.pool:
        steps["pool"] = (pool_name(conv), pooling(conv.pool))
    block: dict[str, nn.Module] = {}
    if conv.overhang:  # windows past the right and bottom edge skip what is outside: zeros there
        block[f"overhang{number}"] = nn.ZeroPad2d((0, conv.overhang, 0, conv.overhang))
    block[conv.name] = convolution(spec, conv, maps, side)
    block.update(steps[step] for step in conv.order if step in steps)
    return block


def convolution(spec: Spec, conv: Conv, maps: int, side: int) -> nn.Module:
    """Return the convolution alone, its weights shared or local."""
    if not conv.shared:
        return LocallyConnected2d(maps, conv.maps, side, conv.kernel, padding=conv.padding)
    return nn.Conv2d(
        maps,
        conv.maps,
        conv.kernel,
        stride=conv.stride,
        padding=conv.padding,
        groups=spec.groups(conv),
    )


def pooling(pool: Pool) -> nn.Module:
    """Return the pooling layer; an average counts only pixels inside the map."""
    if pool.kind == "max":
        return nn.MaxPool2d(pool.window, pool.stride, ceil_mode=pool.ceil)
    return nn.AvgPool2d(pool.window, pool.stride, ceil_mode=pool.ceil, count_include_pad=False)


def dense_block(spec: Spec, name: str, inputs: int, units: int) -> dict[str, nn.Module]:
    """Return a hidden fully-connected layer, its activation and its dropout, named."""
    number = "".join(filter(str.isdigit, name))
    block = {name: nn.Linear(inputs, units), f"{spec.activation}{number}": activation(spec)}
    if not spec.dropout.rate:
        return block
    drop = {f"drop{number}": Dropout(spec.dropout.rate, spec.dropout.form)}
    return block | drop if spec.dropout.place == "outputs" else drop | block


def activation(spec: Spec) -> nn.Module:
    """Return the spec's nonlinearity."""
    return nn.ReLU() if spec.activation == "relu" else nn.Tanh()


@torch.no_grad()
def initialise(network: AlexNet, seed: int = 0) -> None:
    """Draw the initial weights of the spec, the same for a seed on every machine.

    Weights are normal with the layer's standard deviation and biases constant; ``None`` in the
    spec leaves PyTorch's default distribution, drawn from the same seed.
    """
    spec = network.spec
    draws = torch.Generator().manual_seed(seed)
    settings = {conv.name: (conv.std, conv.bias) for conv in spec.convs}
    settings |= {dense.name: (dense.std, dense.bias) for dense in spec.dense}
    settings[spec.output_name] = (spec.output_std, spec.output_bias)
    for name, (std, bias) in settings.items():
        layer = network.get_submodule(name)
        weight, offset = layer.get_parameter("weight"), layer.get_parameter("bias")
        inputs = weight[0].numel() if weight.dim() != 3 else weight.shape[1]
        bound = inputs**-0.5  # PyTorch's default for both
        if std is None:
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=draws))
        else:
            weight.copy_(torch.empty(weight.shape).normal_(0, std, generator=draws))
        if bias is None:
            offset.copy_(torch.empty(offset.shape).uniform_(-bound, bound, generator=draws))
        else:
            offset.fill_(bias)


def build(spec: Spec, seed: int | None = 0) -> AlexNet:
    """Return the network of a spec with its initial weights drawn from `seed`.

    With ``seed=None`` the weights are left undrawn, for a checkpoint to fill.
    """
    with torch.device("meta"):  # else PyTorch would draw every weight first, to be overwritten
        network = AlexNet(spec)
    network.to_empty(device="cpu")
    if seed is not None:
        initialise(network, seed)
    return network
