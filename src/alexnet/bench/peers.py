"""The same network as its users usually write it: plain modules, `nn.LocalResponseNorm`, eager."""

from torch import nn

from alexnet.layers import LocalResponseNorm
from alexnet.network import AlexNet, build
from alexnet.spec import LRN, Spec


def plain_network(spec: Spec) -> AlexNet:
    """Return the network of a spec with PyTorch's own LRN in place of ours.

    PyTorch's window cannot stop at a tower, so this is a peer for networks of one tower.
    """
    network = build(spec)
    for name, module in list(network.named_children()):
        if isinstance(module, LocalResponseNorm):
            setattr(network, name, plain_lrn(module.norm))
    return network


def plain_lrn(norm: LRN) -> nn.LocalResponseNorm:
    """Return PyTorch's layer for our constants."""
    return nn.LocalResponseNorm(norm.size, norm.alpha_over_n, norm.beta, norm.k)
