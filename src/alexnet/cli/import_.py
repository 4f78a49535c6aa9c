"""``alexnet import``."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts

from alexnet.cli.common import Json
from alexnet.interop import WeightsFormat

if TYPE_CHECKING:
    from alexnet.interop.imports import Import

SHOWN = 4  # names of classes


def import_(
    file: str,
    *,
    out: Path,
    form: Annotated[WeightsFormat | None, cyclopts.Parameter(name="--as")] = None,
    classes: Path | None = None,
    mean: Path | None = None,
    prototxt: Path | None = None,
    pixels: str | None = None,
    json: Json = False,
) -> None:
    """Make a run of weights from elsewhere: Caffe, torchvision, ONNX, Keras, TensorFlow, the hub.

    Example: `alexnet import bvlc_alexnet.caffemodel --classes synset_words.txt --mean
    imagenet_mean.binaryproto --out runs/bvlc`, then `alexnet predict runs/bvlc PHOTOGRAPH`

    Parameters
    ----------
    file
        A .caffemodel, .pth, .safetensors, .onnx, .keras, .h5 or .npy, a checkpoint of
        cuda-convnet2, the model.json of TensorFlow.js, or a model folder or repository user/name
        of the Hugging Face hub, as `alexnet export` makes them.
    out
        The run's folder, for every other command.
    form
        What the file is; by default what its content says. A repository of the hub needs
        `--as huggingface`.
    classes
        A text that names one class a line, in the order of the outputs; of a line that begins with
        a wnid, that alone. Or the batches.meta of cuda-convnet.
    mean
        The mean image or colour of the training set, of 0-255: .binaryproto, .npy or cuda-convnet's
        batches.meta, its channels in the order of the network's: BGR for Caffe.
    prototxt
        caffe: a description of the layers that counts instead of the one in the file.
    pixels
        A named network whose pixels this one takes, where the file does not say, as those of ONNX,
        Keras and TensorFlow: caffe (BGR), torchvision, paper (RGB).
    """
    from alexnet.interop.imports import import_file

    made = import_file(
        file, out, form=form, classes=classes, mean=mean, prototxt=prototxt, pixels=pixels
    )
    result = describe_import(made)
    if json:
        print(json_format.dumps(result))
    else:
        print("\n".join(_sentences(result)))


def describe_import(made: "Import") -> dict[str, Any]:
    """Return what was found and what became of it, for people and programs."""
    config = made.run.config
    spec, pixels = config.spec, config.spec.pixels
    after = {conv.name: _after(conv, spec.activation) for conv in spec.convs}
    layers = [
        {
            "name": layer.name,
            "output": [layer.channels, layer.size, layer.size]
            if layer.size > 1
            else [layer.channels],
            "parameters": layer.parameters,
            "weights": layer.arithmetic,
            "then": after.get(layer.name, ""),
        }
        for layer in spec.layers()
        if layer.parameters
    ]
    mean = [round(value, 4) for value in pixels.mean] if isinstance(pixels.mean, tuple) else "image"
    return {
        "run": str(made.run.folder),
        "as": made.form,
        "found": list(made.found),
        "network": spec.name,
        "image": spec.image_size,
        "parameters": spec.parameters,
        "layers": layers,
        "classes": list(config.classes),
        "preprocessing": {
            "prepared": config.data_size,
            "channels": pixels.channel_order,
            "scale": pixels.scale,
            "mean_rgb": mean,
            "stdev": list(pixels.stdev),
        },
    }


def _after(conv: Any, activation: str) -> str:
    """Return what follows a convolution, in its order."""
    steps = {
        "activation": activation,
        "norm": "norm" if conv.norm else "",
        "within_channel_lrn": "same-map norm" if conv.within_channel_lrn else "",
        "pool": f"{conv.pool.kind} pool" if conv.pool else "",
    }
    return ", ".join(filter(None, (steps[step] for step in conv.order)))


def _sentences(result: dict[str, Any]) -> list[str]:
    before = result["preprocessing"]
    names = result["classes"]
    known = "a network of its own" if result["network"] == "imported" else result["network"]
    said = [*result["found"]]
    said.append(
        f"network: {known}, {result['image']}-pixel images, {result['parameters']:,} parameters"
    )
    for layer in result["layers"]:
        shape = "x".join(map(str, layer["output"]))
        then = f", then {layer['then']}" if layer["then"] else ""
        said.append(f"  {layer['name']:6} {shape:>10}  {layer['weights']}{then}")
    mean = before["mean_rgb"]
    mean = (
        "the mean image"
        if isinstance(mean, str)
        else "RGB " + ", ".join(f"{value:g}" for value in mean)
    )
    said.append(
        f"images: {before['prepared']} pixels, {before['channels']}, 0-255 times "
        f"{before['scale']:.4g}, less {mean}, over {', '.join(map('{:g}'.format, before['stdev']))}"
    )
    more = ", …" if len(names) > SHOWN else ""
    said.append(f"classes: {len(names)}: {', '.join(names[:SHOWN])}{more}")
    said.append(f"in {result['run']}; alexnet predict {result['run']} PHOTOGRAPH")
    return said
