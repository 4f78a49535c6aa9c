"""``alexnet summary``."""

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING

from alexnet.cli.common import Json, apply_settings

if TYPE_CHECKING:
    from alexnet.spec import Spec


def summary(network: str = "single", *, set: list[str] | None = None, json: Json = False) -> None:
    """Print a network layer by layer, with the arithmetic written out.

    Example: `alexnet summary paper --set classes=10`

    Parameters
    ----------
    network
        single, paper, as_run, caffe, caffenet, torchvision, cifar_quick or cifar_local.
    set
        A field of the network to change, NAME=VALUE: `towers=2`, `conv1.norm.k=1`. Repeatable.
    """
    from alexnet.variants import network_named

    chosen = apply_settings(network_named(network), set or [])
    if json:
        print(format_spec(chosen))
    else:
        print(format_text(chosen))


def format_spec(spec: "Spec") -> str:
    """Return the counts of a network as a JSON object."""
    layers = [{**asdict(layer), "outputs": layer.outputs} for layer in spec.layers()]
    counts = {
        "network": spec.name,
        "parameters": spec.parameters,
        "neurons": spec.neurons,
        "neurons_with_input": spec.neurons + spec.inputs,
        "macs": spec.macs,
        "classes": spec.num_classes,
        "layers": layers,
    }
    return json_format.dumps(counts)


def format_text(spec: "Spec") -> str:
    """Return the counts of a network as the starting document writes them."""
    lines = [f"{'layer':10} {'output':>12} {'neurons':>9} {'parameters':>12}  arithmetic"]
    for layer in spec.layers():
        shape = (
            f"{layer.size}x{layer.size}x{layer.channels}" if layer.size > 1 else str(layer.channels)
        )
        neurons = f"{layer.outputs:,}" if layer.kind != "pool" else ""
        count = f"{layer.parameters:,}" if layer.parameters else ""
        lines.append(
            f"{layer.name:10} {shape:>12} {neurons:>9} {count:>12}  {layer.arithmetic}".rstrip()
        )
    lines.append(f"{spec.parameters:,} parameters, {spec.macs:,} multiply-accumulates an image")
    lines.append(
        f"{spec.neurons:,} neurons, {spec.neurons + spec.inputs:,} with the input's {spec.inputs:,}"
    )
    return "\n".join(lines)
