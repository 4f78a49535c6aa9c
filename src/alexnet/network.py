"""Spec -> nn.Module: the whole network is this file, read from top to bottom.

The layers carry the paper's names, so ``network.conv1.weight`` is what it says, and a state dict
has the sixteen entries ``conv1.weight`` ... ``fc8.bias``.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from alexnet.errors import ConfigError, did_you_mean
from alexnet.layers import Dropout, LocallyConnected2d, LocalResponseNorm, WithinChannelResponseNorm
from alexnet.spec import Conv, Dense, Pool, Spec, layer_number, pool_name


class AlexNet(nn.Sequential):
    """The network of a spec: pixels ``(N, 3, image, image)`` to logits ``(N, classes)``.

    Pixels are what ``spec.pixels`` says: 0-255 less the training mean for the networks of 2012.

    Its halves have the names that timm gives them: `forward_features`, the convolutions, and
    `forward_head`, the fully-connected layers; `reset_classifier` puts another last layer on.
    """

    def __init__(self, spec: Spec) -> None:
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        channels = spec.in_channels
        sizes = {layer.name: layer.size for layer in spec.layers()}
        for conv in spec.convs:
            modules.update(make_conv_block(spec, conv, channels, sizes[conv.name]))
            channels = conv.out_channels
        modules["flatten"] = nn.Flatten()
        channels, side = spec.flat
        inputs = channels * side**2  # 9216 for the paper's
        for dense in spec.dense:
            modules.update(make_dense_block(spec, dense.name, inputs, dense.units))
            inputs = dense.units
        modules[spec.output_name] = make_output_layer(inputs, spec.num_classes)
        super().__init__(modules)
        self.spec = spec

    def forward(self, input: Tensor) -> Tensor:
        """Map pixels ``(N, 3, image, image)`` to one logit a class, ``(N, classes)``.

        Images of another size or number of channels than the spec's are a `ConfigError`.
        """
        return self.forward_head(self.forward_features(input))

    def forward_features(self, input: Tensor) -> Tensor:
        """Map pixels to what the convolutions make of them, pool5's ``(N, 256, 6, 6)``."""
        wanted = (self.spec.in_channels, self.spec.image_size, self.spec.image_size)
        if tuple(input.shape[1:]) != wanted:
            raise ConfigError(
                f"Network {self.spec.name!r} takes images of {wanted}, these are "
                f"{tuple(input.shape[1:])}."
            )
        for layer in list(self)[: self._head_at()]:
            input = layer(input)
        return input

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the output of `forward_features` to logits.

        With `pre_logits`, to what the last layer sees, ``(N, head_hidden_size)``: the last hidden
        layer after activation and dropout.
        """
        layers = list(self)[self._head_at() :]
        for layer in layers[:-1] if pre_logits else layers:
            x = layer(x)
        return x

    def _head_at(self) -> int:
        return list(self._modules).index("flatten")

    @property
    def num_classes(self) -> int:
        """Width of the last layer; 0 where there is none."""
        return self.spec.num_classes

    @property
    def num_features(self) -> int:
        """Channels that `forward_features` returns: 256 for the paper's."""
        return self.spec.flat[0]

    @property
    def head_hidden_size(self) -> int:
        """Inputs of the last layer: 4096 for the paper's."""
        channels, side = self.spec.flat
        return self.spec.dense[-1].units if self.spec.dense else channels * side**2

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.spec.output_name)

    def reset_classifier(self, num_classes: int, *, seed: int = 0) -> None:
        """Put a last layer of another width on, its weights drawn as the spec says; in place.

        0 leaves it out: logits are then what ``forward_head(pre_logits=True)`` returns, and the
        state dict has two entries fewer. A width below 0 is a `ConfigError`.
        """
        spec = replace(self.spec, num_classes=num_classes)
        layer = make_output_layer(self.head_hidden_size, num_classes)
        if num_classes:
            init_layer(
                layer, spec.output_std, spec.output_bias, torch.Generator().manual_seed(seed)
            )
        like = next(self.parameters())
        self.add_module(spec.output_name, layer.to(like.device, like.dtype))
        self.spec = spec

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a state dict; `ConfigError` where they are another network's."""
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            wrong = str(error).splitlines()[-1].strip().removesuffix(".")
            raise ConfigError(f"The weights are of another network ({wrong}).") from error

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


def make_conv_block(
    spec: Spec, conv: Conv, in_channels: int, out_size: int
) -> dict[str, nn.Module]:
    """Return a convolution and what follows it, named and in the spec's order."""
    number = layer_number(conv.name)
    stages: dict[str, tuple[str, nn.Module]] = {
        "activation": (f"{spec.activation}{number}", make_activation(spec))
    }
    if conv.norm:
        stages["norm"] = (f"norm{number}", LocalResponseNorm(conv.norm, spec.towers))
    if conv.within_channel_lrn:
        layer = WithinChannelResponseNorm(conv.within_channel_lrn)
        stages["within_channel_lrn"] = (f"within_channel_lrn{number}", layer)
    if conv.pool:
        stages["pool"] = (pool_name(conv), make_pool(conv.pool))
    block: dict[str, nn.Module] = {}
    if past := conv.asymmetric_padding:  # zeros where windows reach past the right and bottom edge
        block[f"pad{number}"] = nn.ZeroPad2d((0, past, 0, past))
    block[conv.name] = make_convolution(spec, conv, in_channels, out_size)
    block.update(stages[stage] for stage in conv.order if stage in stages)
    return block


def make_convolution(spec: Spec, conv: Conv, in_channels: int, out_size: int) -> nn.Module:
    """Return the convolution alone, its weights shared or local."""
    if conv.locally_connected:
        return LocallyConnected2d(
            in_channels, conv.out_channels, out_size, conv.kernel_size, padding=conv.padding
        )
    return nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        groups=spec.groups(conv),
    )


def make_pool(pool: Pool) -> nn.Module:
    """Return the pooling layer; an average counts only pixels inside the map."""
    if pool.kind == "max":
        return nn.MaxPool2d(pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode)
    return nn.AvgPool2d(
        pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode, count_include_pad=False
    )


def make_dense_block(spec: Spec, name: str, inputs: int, units: int) -> dict[str, nn.Module]:
    """Return a hidden fully-connected layer, its activation and its dropout, named."""
    number = layer_number(name)
    block = {name: nn.Linear(inputs, units), f"{spec.activation}{number}": make_activation(spec)}
    if not spec.dropout.rate:
        return block
    drop = {f"drop{number}": Dropout(spec.dropout.rate, spec.dropout.form)}
    return block | drop if spec.dropout.place == "outputs" else drop | block


def make_activation(spec: Spec) -> nn.Module:
    """Return the spec's nonlinearity."""
    return nn.ReLU() if spec.activation == "relu" else nn.Tanh()


def make_output_layer(inputs: int, num_classes: int) -> nn.Module:
    """Return the last layer; of 0 classes it is none."""
    return nn.Linear(inputs, num_classes) if num_classes else nn.Identity()


def init_weights(network: AlexNet, seed: int = 0) -> None:
    """Draw the initial weights of the spec, the same for a seed on every machine.

    Weights are normal with the layer's standard deviation and biases constant; ``None`` in the
    spec leaves PyTorch's default distribution, drawn from the same seed.
    """
    spec = network.spec
    generator = torch.Generator().manual_seed(seed)
    layers: tuple[Conv | Dense, ...] = (*spec.convs, *spec.dense)
    for layer in layers:
        init_layer(network.get_submodule(layer.name), layer.std, layer.bias, generator)
    if spec.num_classes:
        init_layer(network.get_classifier(), spec.output_std, spec.output_bias, generator)


@torch.no_grad()
def init_layer(
    layer: nn.Module, std: float | None, bias: float | None, generator: torch.Generator
) -> None:
    """Draw a layer's weights, then its biases; ``None`` is PyTorch's default for either."""
    weight, offset = layer.get_parameter("weight"), layer.get_parameter("bias")
    inputs = weight[0].numel() if weight.dim() != 3 else weight.shape[1]
    bound = inputs**-0.5  # PyTorch's default for both
    if std is None:
        weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
    else:
        weight.copy_(torch.empty(weight.shape).normal_(0, std, generator=generator))
    if bias is None:
        offset.copy_(torch.empty(offset.shape).uniform_(-bound, bound, generator=generator))
    else:
        offset.fill_(bias)


def freeze(network: AlexNet, layers: Iterable[str]) -> None:
    """Keep some layers' weights as they are, named as for `Spec.frozen`: they get no gradient.

    Where the first layers are frozen, the backward pass ends at the last of them.
    """
    for name in network.spec.frozen(*layers):
        network.get_submodule(name).requires_grad_(False)


def build(spec: Spec, seed: int | None = 0) -> AlexNet:
    """Return the network of a spec with its initial weights drawn from `seed`.

    With ``seed=None`` the weights are left undrawn, for a checkpoint to fill.
    """
    with torch.device("meta"):  # else PyTorch would draw every weight first, to be overwritten
        network = AlexNet(spec)
    for layer in list(network.modules()):  # `to_empty` would import sympy: a third of a second
        for name, weight in list(layer.named_parameters(recurse=False)):
            layer.register_parameter(name, nn.Parameter(torch.empty(weight.shape)))
    if seed is not None:
        init_weights(network, seed)
    return network
