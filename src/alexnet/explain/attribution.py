"""Which pixels decide: maps of one photograph for one class, by Captum where it has the method."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from alexnet.data.decode import ImageLike, box_in_photograph, resize_and_crop, to_rgb
from alexnet.data.imagenet import describe_classes
from alexnet.errors import ConfigError, did_you_mean, import_extra
from alexnet.features import receptive_field
from alexnet.predictor import AS_TRAINED, Predictor, Switches
from alexnet.spec import layer_number

COVERED = 7  # squares along a side of the view: each half over the next
PIECES = 7  # along a side that feature ablation covers one by one
PATH_STEPS = 20  # of integrated gradients, by the rule of Gauss and Legendre
SAMPLES, NOISE = 16, 0.15  # of SmoothGrad; the noise as a share of the range of the pixels


@dataclass(frozen=True, eq=False)
class Question:
    """Why is the network this sure of a class? What a method is asked."""

    network: nn.Sequential  # the plain layers, float32, whose outputs can be hooked
    probabilities: Callable[[Tensor], Tensor]  # the fast form, for methods that take no gradient
    pixels: Tensor  # (1, 3, side, side) float32, as the network takes them; requires its gradient
    target: int  # the class
    layer: str  # that Grad-CAM and LayerCAM look at
    is_mirrored: bool = False  # left to right, so that the map is turned back


@dataclass(frozen=True, slots=True)
class Method:
    """A way to answer a question, and what of its answer is drawn."""

    attribute: Callable[[Any, Question], Tensor]  # with captum.attr, to (1, 3 or 1, height, width)
    drawn: Literal["magnitude", "sum", "mean"]  # over colours: the largest size, the sum, the mean
    changes_relu: bool = False  # on the way back, so that it needs a network with ReLUs


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each pixel of the network's view speaks for a class."""

    method: str
    label: str  # the class as the data names it
    name: str  # readable
    probability: float  # of the class, from the centre view
    map: NDArray[np.float32]  # (side, side); below zero it speaks against the class
    photograph: Image.Image  # upright, RGB
    box: tuple[float, float, float, float]  # the view in the photograph: left, top, right, bottom

    @property
    def peak(self) -> tuple[float, float]:
        """The strongest place, x and y in pixels of the photograph."""
        row, column = np.unravel_index(self.map.argmax(), self.map.shape)
        left, top, right, _ = self.box
        pixel = (right - left) / len(self.map)
        return left + (float(column) + 0.5) * pixel, top + (float(row) + 0.5) * pixel


def explain(
    predictor: Predictor, image: ImageLike, method: str = "grad-cam", *, label: str | None = None,
    layer: str | None = None, switches: Switches = AS_TRAINED,
) -> Explanation:  # fmt: skip
    """Return which pixels of a photograph decide; see `explain_all`."""
    return explain_all(
        predictor, image, [method], label=label, layer=layer, switches=switches
    )[0]  # fmt: skip


def explain_all(
    predictor: Predictor, image: ImageLike, methods: Sequence[str] = (), *,
    label: str | None = None, layer: str | None = None, switches: Switches = AS_TRAINED,
) -> list[Explanation]:  # fmt: skip
    """Return which pixels of a photograph decide, by each of some methods.

    The network runs in float32 whatever it was trained in, and sees the centre view. Raises
    `ConfigError` when there is no such method, class or layer, or the method needs ReLUs and there
    are none; `ImageError` when the image cannot be read or is none; `MissingExtraError` when Captum
    is not installed.

    Parameters
    ----------
    predictor : Predictor
        A trained run (`alexnet.load`).
    image : str, Path, bytes, binary file, PIL.Image.Image or ndarray
        What `data.decode.to_rgb` takes.
    methods : sequence of str
        Names of `METHODS`; by default all.
    label : str
        The class in question, as the data or `predict` names it; by default the most probable.
    layer : str
        That Grad-CAM and LayerCAM look at; by default the last convolution's activation.
    switches : Switches
        What is changed in the network.
    """
    photograph = to_rgb(image)
    prepared = torch.from_numpy(np.array(resize_and_crop(photograph, predictor.resize_to)))
    chances = predictor.in_float32.probabilities(prepared[None], switches=switches)[0]
    target = int(chances.argmax()) if label is None else find_class(predictor, label)
    question = make_question(predictor, prepared, target, layer, switches)
    start, stop = predictor.view.start, predictor.view.stop
    box = box_in_photograph((start, start, stop, stop), predictor.resize_to, *photograph.size)
    return [
        Explanation(
            method,
            predictor.classes[target],
            describe_classes(predictor.classes)[target],
            float(chances[target]),
            attribute(predictor, question, method),
            photograph,
            box,
        )
        for method in methods or METHODS
    ]


def make_question(
    predictor: Predictor, prepared: Tensor, target: int, layer: str | None = None,
    switches: Switches = AS_TRAINED,
) -> Question:  # fmt: skip
    """Ask about an image as the data was prepared, ``(resize_to, resize_to, 3)`` uint8."""
    precise = predictor.in_float32
    network = plain_network(predictor, switches)
    layer = layer or last_activation(predictor)
    spatial = [name for name, _ in network.named_children()]
    spatial = spatial[: spatial.index("flatten")]
    if layer not in spatial:
        raise ConfigError(f"No layer of maps is called {layer!r}.", did_you_mean(layer, spatial))
    pixels = precise.centre_crops(prepared[None], switches).requires_grad_()
    fast = precise.choose_forward(switches)
    return Question(
        network, lambda x: fast(x).softmax(1), pixels, target, layer, switches.mirror
    )  # fmt: skip


def plain_network(predictor: Predictor, switches: Switches = AS_TRAINED) -> nn.Sequential:
    """Return the network's own layers in float32: the fast form has no gradients within it.

    The layers are copies, the weights are not: methods hook layers, and another thread may be
    asking the same network.
    """
    weights = {id(parameter): parameter for parameter in predictor.network.parameters()}
    layers = OrderedDict(
        (name, deepcopy(layer, weights))
        for name, layer in predictor.network.named_children()
        if switches.keeps(layer)
    )
    network = nn.Sequential(layers).eval()
    if next(network.parameters()).dtype != torch.float32:  # a server holds bfloat16 alone
        network = deepcopy(network).float()
    return network


def find_class(predictor: Predictor, label: str) -> int:
    """Return the number of a class, named as the data or as `predict` names it."""
    for names in (predictor.classes, describe_classes(predictor.classes)):
        if label in names:
            return names.index(label)
    raise ConfigError(f"The run knows no class {label!r}.", did_you_mean(label, predictor.classes))


def last_activation(predictor: Predictor) -> str:
    """Return the activation after the last convolution: relu5 in the networks of 2012."""
    spec = predictor.spec
    return spec.activation + layer_number(spec.convs[-1].name)


def attribute(predictor: Predictor, question: Question, method: str) -> NDArray[np.float32]:
    """Return a method's map of the view, ``(side, side)`` float32."""
    if method not in METHODS:
        raise ConfigError(f"No method is called {method!r}.", did_you_mean(method, METHODS))
    chosen = METHODS[method]
    attr = import_extra("captum.attr", "explain", "Explaining a prediction")
    if chosen.changes_relu and not any(isinstance(layer, nn.ReLU) for layer in question.network):
        raise ConfigError(
            f"{method} changes how ReLUs go backward, and network {predictor.spec.name!r} has none."
        )
    with warnings.catch_warnings():  # Captum announces each hook that it sets
        warnings.filterwarnings("ignore", module="captum", category=UserWarning)
        found = chosen.attribute(attr, question).detach().float().cpu()
    drawn = {
        "magnitude": found.abs().amax(1), "sum": found.sum(1), "mean": found.mean(1)
    }[chosen.drawn]  # fmt: skip
    if drawn.shape[-1] != question.pixels.shape[-1]:
        drawn = place_units(predictor, question.layer, drawn)
    return (drawn[0].flip(1) if question.is_mirrored else drawn[0]).numpy()


def place_units(predictor: Predictor, layer: str, units: Tensor) -> Tensor:
    """Spread ``(N, h, w)`` units over the view, ``(N, side, side)``, each about what it sees.

    Between the centres of receptive fields it is bilinear. To stretch the map from edge to edge
    would move it by up to half a stride, more where the last window hangs over the edge.
    """
    field, side = receptive_field(predictor.spec, layer), predictor.spec.image_size
    middle = field.start + field.size / 2  # of what unit 0 sees
    place = (torch.arange(side) + 0.5 - middle) / field.stride  # in units
    place = (2 * place + 1) / units.shape[-1] - 1  # in the coordinates of grid_sample
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)
    return F.grid_sample(
        units[:, None], grid.expand(len(units), -1, -1, -1), padding_mode="border",
        align_corners=False,
    )[:, 0]  # fmt: skip


def _find_saliency(attr: Any, question: Question) -> Tensor:
    return attr.Saliency(question.network).attribute(question.pixels, question.target)


def _find_smoothgrad(attr: Any, question: Question) -> Tensor:
    with torch.random.fork_rng(), torch.no_grad():  # the same map for the same photograph
        torch.manual_seed(0)
        spread = float(question.pixels.max() - question.pixels.min())
        return attr.NoiseTunnel(attr.Saliency(question.network)).attribute(
            question.pixels, target=question.target, nt_samples=SAMPLES,
            nt_samples_batch_size=SAMPLES, stdevs=NOISE * spread, abs=False,
        )  # fmt: skip


def _find_integrated_gradients(attr: Any, question: Question) -> Tensor:
    # From the mean image, which is zero to the network, to the photograph.
    return attr.IntegratedGradients(question.network).attribute(
        question.pixels,
        target=question.target,
        n_steps=PATH_STEPS,
    )


def _find_guided(attr: Any, question: Question) -> Tensor:
    return attr.GuidedBackprop(question.network).attribute(question.pixels, question.target)


def _find_deconvolution(attr: Any, question: Question) -> Tensor:
    return attr.Deconvolution(question.network).attribute(question.pixels, question.target)


def _find_grad_cam(attr: Any, question: Question) -> Tensor:
    layer = question.network.get_submodule(question.layer)
    return attr.LayerGradCam(question.network, layer).attribute(
        question.pixels, question.target, relu_attributions=True
    )


def _find_guided_grad_cam(attr: Any, question: Question) -> Tensor:
    """Multiply guided backpropagation by Grad-CAM: two ways back from one forward.

    Captum's own gives the same map from two.
    """
    outputs, score = _run_layers(question)
    units = outputs[question.layer]
    (gradient,) = torch.autograd.grad(score, units, retain_graph=True)
    coarse = (gradient.mean((2, 3), keepdim=True) * units).sum(1, keepdim=True).relu()
    for name, output in outputs.items():
        if isinstance(question.network.get_submodule(name), nn.ReLU):
            output.register_hook(torch.relu)  # from here on what is positive goes back alone
    (guided,) = torch.autograd.grad(score, question.pixels)
    return guided * F.interpolate(coarse, guided.shape[2:], mode="bilinear")


def _find_layercam(attr: Any, question: Question) -> Tensor:
    """Weigh each unit by its own gradient where that is positive (Jiang and others, 2021)."""
    outputs, score = _run_layers(question)
    units = outputs[question.layer]
    (gradient,) = torch.autograd.grad(score, units)
    return (gradient.relu() * units).sum(1, keepdim=True).relu()


def _run_layers(question: Question) -> tuple[dict[str, Tensor], Tensor]:
    """Return every layer's output by its name, and the class's logit."""
    out, outputs = question.pixels, {}
    for name, layer in question.network.named_children():
        out = outputs[name] = layer(out)
    return outputs, out[0, question.target]


def _find_occlusion(attr: Any, question: Question) -> Tensor:
    side = question.pixels.shape[-1]
    stride = -(-side // (COVERED + 1))
    part = torch.arange(side) // stride
    first = torch.arange(COVERED)[:, None]
    return _find_losses(question, (part == first) | (part == first + 1))


def _find_ablation(attr: Any, question: Question) -> Tensor:
    side = question.pixels.shape[-1]
    return _find_losses(
        question, torch.arange(side) * PIECES // side == torch.arange(PIECES)[:, None]
    )


@torch.no_grad()
def _find_losses(question: Question, spans: Tensor) -> Tensor:
    """Return what of the probability is lost as squares of the mean image cover the pixels.

    `spans`, ``(n, side)`` bool, has a square's rows, and its columns; all n * n squares are one
    batch. Each pixel has the mean of the squares over it. Captum's own gives the same map and takes
    half as long again.
    """
    spans = spans.to(question.pixels.device, torch.float32)
    squares = torch.einsum("iy,jx->ijyx", spans, spans).flatten(0, 1)[:, None]
    kept = torch.cat([torch.ones_like(squares[:1]), 1 - squares])  # of the first all
    chances = question.probabilities(question.pixels * kept)[:, question.target]
    losses = (chances[0] - chances[1:]).unflatten(0, (len(spans), -1))
    means = spans / spans.sum(0)
    return (means.T @ losses @ means)[None, None]


METHODS = {
    "saliency": Method(_find_saliency, "magnitude"),
    "smoothgrad": Method(_find_smoothgrad, "magnitude"),
    "integrated-gradients": Method(_find_integrated_gradients, "sum"),
    "guided-backprop": Method(_find_guided, "magnitude", changes_relu=True),
    "deconvolution": Method(_find_deconvolution, "magnitude", changes_relu=True),
    "grad-cam": Method(_find_grad_cam, "sum"),
    "guided-grad-cam": Method(_find_guided_grad_cam, "magnitude", changes_relu=True),
    "layercam": Method(_find_layercam, "sum"),
    "occlusion": Method(_find_occlusion, "mean"),  # colours are covered together
    "ablation": Method(_find_ablation, "mean"),
}
