"""The same network as its users usually write it: plain modules, `nn.LocalResponseNorm`, eager."""

from dataclasses import replace

from torch import nn

from alexnet.layers import Dropout, LocalResponseNorm
from alexnet.network import AlexNet, build
from alexnet.spec import LRN, Spec
from alexnet.variants import TORCHVISION


def plain_network(spec: Spec) -> AlexNet:
    """Return the network of a spec with PyTorch's own LRN and dropout in place of ours.

    PyTorch's window cannot stop at a tower, so this is a peer for networks of one tower. Its
    dropout is the inverted one.
    """
    network = build(replace(spec, dropout=replace(spec.dropout, form="inverted")))
    for name, module in list(network.named_children()):
        if isinstance(module, LocalResponseNorm):
            setattr(network, name, plain_lrn(module.norm))
        elif isinstance(module, Dropout):
            setattr(network, name, nn.Dropout(module.rate))
    return network


def torchvision_network(spec: Spec) -> AlexNet:
    """Return torchvision's AlexNet, layer by layer, for as many classes as a spec has.

    It is another network: 64-192-384-256-256 maps, no LRN, ReLUs that overwrite their input.
    """
    network = plain_network(replace(TORCHVISION, num_classes=spec.num_classes))
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return network


def plain_lrn(norm: LRN) -> nn.LocalResponseNorm:
    """Return PyTorch's layer for our constants."""
    return nn.LocalResponseNorm(norm.size, norm.alpha, norm.beta, norm.k)
