"""``alexnet identify``."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts

from alexnet.cli.common import Json
from alexnet.interop import WeightsFormat

if TYPE_CHECKING:
    from alexnet.interop.identify import Identity
    from alexnet.spec import Spec


def identify(
    file: Path,
    *,
    form: Annotated[WeightsFormat | None, cyclopts.Parameter(name="--as")] = None,
    json: Json = False,
) -> None:
    """Say which of the networks called AlexNet a file of weights is, and how good that one was.

    Example: `alexnet identify bvlc_alexnet.caffemodel`

    Parameters
    ----------
    file
        Any weights that `alexnet import` takes, or a run's folder or a model folder.
    form
        What the file is; by default what its content says.
    """
    from alexnet.interop import model_folder
    from alexnet.interop.identify import identify as identify_network
    from alexnet.interop.imports import detect_format, read_weights_file

    found: tuple[str, ...] = ("a run",)
    if form == "huggingface" or (file / model_folder.WEIGHTS).is_file():
        read = model_folder.read(model_folder.fetch(str(file)))
        spec, weights = read.config.spec, read.checkpoint.weights
        found = ("a model folder of alexnet",)
    elif (file / "config.json").is_file():
        from alexnet.api import load

        model = load(file, device="cpu")
        spec, weights = model.spec, model.network.state_dict()
    else:
        imported = read_weights_file(file, form or detect_format(file))
        spec, weights, found = imported.spec, imported.weights, imported.found
    identity = identify_network(spec, weights)
    if json:
        print(json_format.dumps(_as_json(spec, identity, found)))
    else:
        print("\n".join(_sentences(spec, identity, found)))


def _as_json(spec: "Spec", identity: "Identity", found: tuple[str, ...]) -> dict[str, Any]:
    known = identity.known
    return {
        "found": list(found),
        "network": known.title,
        "exact": identity.is_exact,
        "differences": {name: list(pair) for name, pair in identity.apart.items()},
        "parameters": spec.parameters,
        "classes": spec.num_classes,
        "pixels": asdict(spec.pixels),
        "weights": list(identity.evidence),
        "accuracies": [asdict(accuracy) for accuracy in known.accuracies],
        "remark": known.remark,
    }


def _sentences(spec: "Spec", identity: "Identity", found: tuple[str, ...]) -> list[str]:
    from alexnet.interop.identify import DIFFERENCES_SHOWN

    known, pixels = identity.known, spec.pixels
    widths = "-".join(str(conv.out_channels) for conv in spec.convs)
    grouped = [conv.name for conv in spec.convs if spec.groups(conv) == 2]
    norms = {conv.norm for conv in spec.convs if conv.norm}
    said = [*found, f"{'It is' if identity.is_exact else 'Nearest is'} {known.title}."]
    for name, (theirs, ours) in [*identity.apart.items()][:DIFFERENCES_SHOWN]:
        said.append(f"  {name} is {ours}, there {theirs}")
    if len(identity.apart) > DIFFERENCES_SHOWN:
        said.append(f"  and {len(identity.apart) - DIFFERENCES_SHOWN} more differences")
    said.append(
        f"maps {widths}, {', '.join(grouped) or 'none'} in two groups, {spec.parameters:,} "
        f"parameters, {spec.num_classes:,} classes"
    )
    said += [f"LRN with k of {n.k:g}, alpha {n.alpha:g} over {n.size}" for n in norms] or ["no LRN"]
    said.append(
        f"pixels of {spec.image_size}, {pixels.channel_order}, 0-255 times {pixels.scale:.4g}"
    )
    said += identity.evidence
    said += [
        f"{one.top1:g} % top-1, {one.top5:g} % top-5: {one.how} ({one.source})"
        for one in known.accuracies
    ] or ["No result of it is known."]
    if known.accuracies and spec.num_classes != 1000:
        said.append("These are of ImageNet's 1,000 classes, not of this file's.")
    return [*said, known.remark] if known.remark else said
