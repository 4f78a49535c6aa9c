"""Which of the networks called AlexNet a spec and its weights are, and what that one's results are.

Every result stands with its source; ``docs/which-alexnet.md`` has them in one table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from torch import Tensor

from alexnet.interop.layer_ir import find_differences
from alexnet.spec import LRN, ConvStage, Pool, Spec
from alexnet.variants import (
    AS_RUN,
    CAFFE,
    CAFFENET,
    HALF_LINEAR,
    PAPER,
    SINGLE,
    TORCHVISION,
    without_lrn,
    without_overlap,
)

DIFFERENCES_SHOWN = 6
# Biases at the start of a training stay the mark of it: they are not decayed, and those of the last
# layer keep their mean, since a softmax's gradients add up to nothing.
STARTS = {0.0: "as in networks of no special start", 0.1: "as in bvlc_alexnet", 1.0: "as in 2012"}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A published result on ILSVRC-2012's validation images unless `how` says otherwise."""

    top1: float  # per cent
    top5: float
    how: str  # crops, preprocessing
    source: str


@dataclass(frozen=True, slots=True)
class Known:
    """A network that is called AlexNet somewhere."""

    title: str
    spec: Spec
    accuracies: tuple[Accuracy, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file's network is: the nearest known one, and in what it differs."""

    known: Known
    apart: dict[str, tuple[object, object]]  # by field: the known network's value, this one's
    evidence: tuple[str, ...]  # sentences on the weights

    @property
    def is_exact(self) -> bool:
        """Whether it computes what the known network does."""
        return not self.apart


_NOTES = "the 2012 source, layers/layers-145.cfg and its log (computerhistory/AlexNet-Source-Code)"
_CC2 = "wiki page TrainingExample of akrizhevsky/cuda-convnet2"
_ZOO = "README of vision/classification/alexnet, onnx/models"
_FED_224 = "BVLC's weights fed 224 pixels, where they were trained on 227"
_SMALL_POOL5 = Pool(ceil_mode=True)
_CONV1_LINEAR: tuple[ConvStage, ...] = ("norm", "pool", "activation")

KNOWN = (
    Known(
        "the paper's network of two GPUs",
        PAPER,
        (
            Accuracy(59.3, 81.8, "ten views", "the paper, Table 2: 40.7 % and 18.2 % error"),
            Accuracy(
                62.5, 83.0, "ten views, ILSVRC-2010's test images",
                "the paper, Table 1: 37.5 % and 17.0 % error",
            ),
        ),
        "15.3 % top-5 error is seven networks together, two of them trained on more images.",
    ),
    Known(
        "the network that won in 2012, as its source ran it",
        AS_RUN,
        (Accuracy(59.34, 81.79, "ten views", _NOTES),),
        "Its trained weights were never published.",
    ),
    Known(
        "the paper's network on one GPU, without groups",
        SINGLE,
        remark="Most blogs' AlexNet; 62,378,344 parameters. No published weights are known.",
    ),
    Known(
        "the source's network of 2012 without LRN",
        without_lrn(AS_RUN),
        (Accuracy(57.97, 80.64, "ten views", _NOTES.replace("145", "148")),),
    ),
    Known(
        "the source's network of 2012 with pools that do not overlap",
        without_overlap(AS_RUN),
        (Accuracy(58.94, 81.49, "ten views", _NOTES.replace("145", "147")),),
    ),
    Known(
        "Caffe's bvlc_alexnet",
        CAFFE,
        (
            Accuracy(
                57.1, 80.2, "centre crop of images warped to 256 x 256",
                "models/bvlc_alexnet/readme.md, BVLC/caffe",
            ),
            Accuracy(56.83, 79.95, "the same, measured again", "issue 6382 of BVLC/caffe"),
            Accuracy(
                57.494, 80.588, "centre crop, trained again in PyTorch",
                "README of jiecaoyu/pytorch_imagenet",
            ),
        ),
        "It departs from the paper: k of 1, windows across the groups, biases of 0.1, no PCA.",
    ),
    Known(
        "Caffe's bvlc_reference_caffenet",
        CAFFENET,
        (
            Accuracy(
                57.4, 80.4, "centre crop of images warped to 256 x 256",
                "models/bvlc_reference_caffenet/readme.md, BVLC/caffe",
            ),
        ),
        "It pools before it normalises.",
    ),
    Known(
        "the ONNX zoo's bvlcalexnet",
        replace(CAFFE.with_layers("conv5", pool=_SMALL_POOL5), image_size=224),
        (Accuracy(54.80, 78.23, "centre crop", _ZOO),),
        f"It is {_FED_224}, which costs it 2 points.",
    ),
    Known(
        "the ONNX zoo's caffenet",
        replace(CAFFENET.with_layers("conv5", pool=_SMALL_POOL5), image_size=224),
        (Accuracy(56.27, 79.52, "centre crop", _ZOO.replace("alexnet", "caffenet")),),
        f"It is {_FED_224}.",
    ),
    Known(
        "torchvision's alexnet ('One weird trick', 2014)",
        TORCHVISION,
        (
            Accuracy(
                56.522, 79.066, "centre crop of 224 from a shorter side of 256",
                "AlexNet_Weights.IMAGENET1K_V1, torchvision",
            ),
        ),
        "It is not the network of 2012: other widths, no groups, no LRN, other dropout.",
    ),
    Known(
        "cuda-convnet2's network of one GPU (2014)",
        replace(
            TORCHVISION.with_layers(
                "conv1", padding=0, asymmetric_padding=3, norm=LRN(alpha=1e-4),
                order=_CONV1_LINEAR,
            ).with_layers("conv2", norm=LRN(alpha=1e-4)),
            dropout=PAPER.dropout,
            pixels=PAPER.pixels,
        ),
        (
            Accuracy(57.452, 80.190, "centre crop", f"{_CC2}: 42.548 % and 19.810 % error"),
            Accuracy(59.58, 81.85, "ten views", f"{_CC2}: 40.42 % and 18.15 % error"),
        ),
        "Its widths are those that torchvision took over; it has LRN with k of 2.",
    ),
    Known(
        "TF-Slim's alexnet_v2",
        replace(
            TORCHVISION.with_layers("conv1", padding=0).with_layers("conv4", out_channels=384),
            pixels=PAPER.pixels,
        ),
        remark="50,303,912 parameters: without padding its head sees 5 x 5. No weights are known.",
    ),
)  # fmt: skip


def identify(spec: Spec, weights: Mapping[str, Tensor]) -> Identity:
    """Return the known network that differs in the fewest settings, and what the weights tell.

    Initial weights, preprocessing, dropout and the number of classes are not compared: they do not
    change what is computed of pixels. Widths, groups, windows, LRN, their order and padding are.
    """
    apart = [(find_differences(known.spec, spec), known) for known in KNOWN]
    differing, known = min(apart, key=lambda pair: len(pair[0]))
    return Identity(known, differing, (*_describe_biases(spec, weights), *_describe_dead(weights)))


def _describe_biases(spec: Spec, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Say where the biases seem to have begun, or that they have not moved."""
    hidden = [*HALF_LINEAR, *(layer.name for layer in spec.dense)]
    biases = {name: weights[f"{name}.bias"] for name in hidden if f"{name}.bias" in weights}
    every = [one for name, one in weights.items() if name.endswith(".bias")]
    if every and all(bool((one == one.reshape(-1)[0]).all()) for one in every):
        return ("Every layer's biases are all alike: the network was never trained.",)
    means = {name: float(one.mean()) for name, one in biases.items()}
    said = []
    if means:
        middle = median(means.values())
        start = min(STARTS, key=lambda value: abs(value - middle))
        told = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
        if abs(start - middle) < 0.05 + 0.2 * start:
            said.append(f"Mean biases ({told}) began near {start:g}, {STARTS[start]}.")
        else:
            said.append(f"Mean biases ({told}) are near no known start.")
    last = weights.get(f"{spec.output_name}.bias")
    if last is not None and abs(float(last.mean()) + 7) < 0.1:
        said.append("The last layer's biases average -7, cuda-convnet2's start.")
    return tuple(said)


def _describe_dead(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Say how many filters of the first layer are nearly nothing."""
    if (first := weights.get("conv1.weight")) is None:
        return ()
    norms = first.flatten(1).norm(dim=1)
    dead = int((norms < norms.median() / 100).sum())
    return (f"{dead} of {len(norms)} filters of conv1 are nearly nothing.",) if dead else ()
