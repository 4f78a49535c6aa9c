"""From a photograph to ranked classes: the one way that the whole project takes."""

import math
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice, product
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.data.augment import AugmentParams, Normaliser, augment, crop_offsets, make_normaliser
from alexnet.data.decode import ImageLike, resize_and_crop, to_rgb
from alexnet.data.imagenet import describe_classes
from alexnet.data.loader import Batch, ImageSplit, evaluation_batches, sample_evenly
from alexnet.data.statistics import Statistics
from alexnet.device import CudaGraphRunner, Device, Precision
from alexnet.errors import ConfigError, DataError, did_you_mean
from alexnet.evaluation import Evaluation, evaluate, rank_classes
from alexnet.fused import fuse, prepare_for_inference
from alexnet.layers import Dropout, LocalResponseNorm, WithinChannelResponseNorm
from alexnet.network import AlexNet, build
from alexnet.quantization import quantize_network
from alexnet.spec import Spec

if TYPE_CHECKING:  # pyarrow, for one photograph
    from alexnet.data.shards import PreparedData
    from alexnet.explain import Explanation

CALIBRATION = 256  # training images that fix the scales of int8
CROPS_AT_ONCE = 32  # crops, at most, that few images are seen in at once: weights are read once
MAX_BUILT = 64  # fast forms that are kept; past it the oldest goes
PHOTOGRAPHS_AT_ONCE = 32  # that `predict_many` decodes in threads and predicts together


BUILDING = RLock()  # one thread at a time makes fast forms


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and how probable the network finds it."""

    name: str  # readable: a wnid's first word
    probability: float  # 0 to 1
    label: str  # the class as the data names it: a folder or a wnid


@dataclass(frozen=True, slots=True)
class Switches:
    """What is changed in a trained network before it is asked."""

    lrn: bool = True  # False: response normalisation is left out
    dropout_scale: bool = True  # False: outputs are not multiplied by 1 - rate (section 4.2)
    mirror: bool = False  # the image is mirrored left to right first

    def keeps(self, layer: nn.Module) -> bool:
        """Whether a layer of the network is run."""
        if isinstance(layer, LocalResponseNorm | WithinChannelResponseNorm):
            return self.lrn
        return self.dropout_scale or not isinstance(layer, Dropout)


AS_TRAINED = Switches()


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with its preprocessing and the names of its classes.

    It computes with a fast form of the network that is made at the first question and kept: the
    weights in `dtype`, several layers in one pass. So weights that change later need a new
    predictor: ``dataclasses.replace(predictor)``. Several threads may ask one predictor at once,
    but for `cuda_graphs`.
    """

    network: AlexNet  # in evaluation mode, on `device`
    classes: tuple[str, ...]
    normalise: Normaliser
    resize_to: int  # side of the square that the crops are cut from, in pixels
    step: int  # of the checkpoint
    device: Device
    dtype: torch.dtype  # of the matrix products
    forward: Callable[[Tensor], Tensor] | None = None  # pixels to logits, in place of `network`
    cuda_graphs: bool = False  # on a GPU, record the network; nothing else may use it meanwhile
    fused: bool = True  # in the fast form; False: `network` as it is, in mixed precision

    @property
    def spec(self) -> Spec:
        """What the network is."""
        return self.network.spec

    @property
    def view(self) -> slice:
        """What the centre crop sees, along either side of an image as the data was prepared."""
        start = (self.resize_to - self.spec.image_size) // 2
        return slice(start, start + self.spec.image_size)

    @cached_property
    def in_float32(self) -> "Predictor":
        """The predictor in float32, whatever the run was trained in."""
        return self if self.dtype == torch.float32 else replace(self, dtype=torch.float32)

    def load_pixels(self, image: ImageLike) -> NDArray[np.uint8]:
        """Return an image as the data was prepared, ``(resize_to, resize_to, 3)`` uint8 RGB.

        It may be all that `data.decode.to_rgb` takes: a path, bytes, an open file, an image, an
        array. Raises `ImageError` when it cannot be read or is no image.
        """
        return np.array(resize_and_crop(to_rgb(image), self.resize_to))

    def predict(self, image: ImageLike, *, top: int = 5, crops: int = 10) -> list[Prediction]:
        """Rank the classes for an image.

        Raises `ImageError` when it cannot be read or is no image.

        Parameters
        ----------
        image : str, Path, bytes, binary file, PIL.Image.Image or ndarray
            A file of any format that Pillow reads, its content, an image, or uint8 or uint16
            grey, RGB or RGBA. Turned upright as the EXIF orientation says.
        top : int
            How many classes to return, the most probable first.
        crops : int
            1, the centre; 9; or 10, as the paper tested (section 4.1).
        """
        return next(self.predict_many([image], top=top, crops=crops))

    def predict_many(
        self, images: Iterable[ImageLike], *, top: int = 5, crops: int = 10
    ) -> Iterator[list[Prediction]]:
        """Yield for each of many images what `predict` returns, some dozens of them at once.

        Raises `ImageError` at an image that cannot be read or is none.
        """
        names, rest = describe_classes(self.classes), iter(images)
        with ThreadPoolExecutor() as decoders:
            while some := list(islice(rest, PHOTOGRAPHS_AT_ONCE)):
                load = decoders.map if len(some) > 1 else map
                pixels = torch.from_numpy(np.stack([*load(self.load_pixels, some)]))
                ranked = rank_classes(self.probabilities(pixels, crops))
                for chances, labels in zip(*(found.tolist() for found in ranked), strict=True):
                    yield [
                        Prediction(names[label], chance, self.classes[label])
                        for chance, label in zip(chances[:top], labels, strict=False)
                    ]

    def explain(self, image: ImageLike, method: str = "grad-cam", **options: Any) -> "Explanation":
        """Return which pixels of an image decide, as `alexnet.explain.explain` does."""
        from alexnet.explain import explain

        return explain(self, image, method, **options)

    @torch.inference_mode()
    def probabilities(
        self, images: Tensor, crops: int = 1, switches: Switches = AS_TRAINED
    ) -> Tensor:
        """Return class probabilities, averaged over 1, 9 or 10 crops (section 4.1).

        ``(N, resize_to, resize_to, 3)`` uint8 RGB to ``(N, classes)`` float32 on `device`, each row
        summing to 1. Raises `DataError` for another number of crops, or images of another size or
        type.
        """
        forward = self.choose_forward(switches)
        total: Tensor | float = 0.0
        with self._autocast():
            for pixels in self._crops(images, crops, switches.mirror):
                logits = forward(pixels).float()
                total = total + logits.softmax(1).unflatten(0, (-1, len(images))).sum(0)
        assert isinstance(total, Tensor)
        return total / crops

    @torch.inference_mode()
    def logits(self, images: Tensor, switches: Switches = AS_TRAINED) -> Tensor:
        """Map ``(N, resize_to, resize_to, 3)`` uint8 to the centre crops' logits, ``(N, classes)``.

        They are float32, on `device`. Raises `DataError` for images of another size or type.
        """
        with self._autocast():
            return self.choose_forward(switches)(self.centre_crops(images, switches)).float()

    @torch.inference_mode()
    def activations(
        self, images: Tensor, names: Iterable[str], switches: Switches = AS_TRAINED
    ) -> dict[str, Tensor]:
        """Return what the named layers put out for the centre crops of images.

        ``(N, resize_to, resize_to, 3)`` uint8 RGB to ``(N, *shape)`` float32 on the processor, by
        layer, first to last. One that is switched off puts out what comes in. Raises `ConfigError`
        when a name is unknown; `DataError` for images of another size or type.
        """
        known = [name for name, _ in self.network.named_children()]
        wanted = set(names)
        for name in sorted(wanted.difference(known)):
            raise ConfigError(f"No layer is called {name!r}.", did_you_mean(name, known))
        ordered = tuple(name for name in known if name in wanted)
        out, found = self.centre_crops(images, switches), {}
        with self._autocast():
            for name, layers in zip(ordered, self._segments(ordered, switches), strict=True):
                out = layers(out)
                found[name] = out.float().cpu().contiguous()
        return found

    def centre_crops(self, images: Tensor, switches: Switches = AS_TRAINED) -> Tensor:
        """Return the normalised centre crops, ``(N, 3, size, size)``, channels-last, in `dtype`.

        They are what the network itself takes.
        """
        return next(self._crops(images, 1, switches.mirror))

    def evaluate(
        self, data: "PreparedData", *, crops: int = 10, split: ImageSplit | None = None
    ) -> Evaluation:
        """Test on the held-out split of a prepared data set, or `split`; classes go by name.

        On a GPU the network is recorded as a graph: nothing else may use the GPU meanwhile. Raises
        `DataError` when the data has a class that the run does not know, or was prepared at another
        size.
        """
        self.check_size(data)
        recorded = replace(self, cuda_graphs=True) if self.device.records_graphs else self
        labels = torch.tensor([self._label(name) for name in data.classes])
        batches = (
            Batch(batch.images, labels[batch.labels], batch.indices)
            for batch in evaluation_batches(split or data.held_out, batch_size=64)
        )
        return evaluate(
            lambda images: recorded.probabilities(images, crops), batches, self.classes, crops=crops
        )

    def check_size(self, data: "PreparedData") -> None:
        """See that data has the size that crops are cut from; `DataError` where not."""
        if data.manifest.size != self.resize_to:
            raise DataError(
                f"The data was prepared at {data.manifest.size} pixels and the run's at "
                f"{self.resize_to}.",
                f"Prepare it with --size {self.resize_to}, or name the source itself.",
            )

    def _label(self, name: str) -> int:
        """Return the label of a class, whose name may be in another normal form of Unicode."""
        names = [unicodedata.normalize("NFC", known) for known in self.classes]
        if unicodedata.normalize("NFC", name) not in names:
            raise DataError(
                f"The data has a class {name!r} that the run was not trained on.",
                did_you_mean(name, self.classes),
            )
        return names.index(unicodedata.normalize("NFC", name))

    def _crops(self, images: Tensor, count: int, mirror: bool) -> Iterator[Tensor]:
        """Yield normalised crops, ``(K * N, 3, size, size)``: K crops of every image at once.

        Of ten crops five are the mirror images of the others (section 4.1).
        """
        size = self.spec.image_size
        shape = (len(images), self.resize_to, self.resize_to, 3)
        if images.dtype != torch.uint8 or images.shape != shape:
            raise DataError(
                f"Images of {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')} are "
                f"not what the network's data was prepared as.",
                f"Give (N, {self.resize_to}, {self.resize_to}, 3) uint8 RGB (`load_pixels`).",
            )
        places = [(place, mirror) for place in crop_offsets(images.shape[1], size, count)]
        if count == 10:
            places = [(place, turned) for place, _ in places for turned in (mirror, not mirror)]
        images, rest = images.to(self.device.torch), iter(places)
        while some := list(islice(rest, max(1, CROPS_AT_ONCE // max(1, len(images))))):
            params = AugmentParams(
                torch.tensor([place for place, _ in some]).repeat_interleave(len(images), 0),
                torch.tensor([turned for _, turned in some]).repeat_interleave(len(images)),
                torch.empty(0, 3),
            )
            params = params.to(self.device.torch)
            repeated = images.repeat(len(some), 1, 1, 1) if len(some) > 1 else images
            pixels = augment(repeated, params, None, self.normalise, 1.0, size, self.dtype)
            yield pixels.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        """Return the context of the network: the fast form is in `dtype` as it is."""
        return self.device.autocast(torch.float32 if self.fused else self.dtype)

    @property
    def fast_network(self) -> nn.Sequential:
        """The fast form of the network: what `centre_crops` returns to logits, in `dtype`."""
        (layers,) = self._segments(self._last, AS_TRAINED)
        return layers

    @property
    def _last(self) -> tuple[str]:
        return (next(reversed(self.network._modules)),)

    @cached_property
    def _prepared(self) -> nn.Sequential:
        """The network's layers with weights in `dtype`, those that can in a faster form."""
        return prepare_for_inference(self.network, self.dtype)

    @cached_property
    def _built(self) -> dict[tuple[tuple[str, ...], Switches], list[nn.Sequential]]:
        """What `_segments` has made."""
        return {}

    @cached_property
    def _runners(self) -> dict[Switches, Callable[[Tensor], Tensor]]:
        """What `choose_forward` has made."""
        return {}

    def choose_forward(self, switches: Switches) -> Callable[[Tensor], Tensor]:
        """Return the function from normalised pixels to logits."""
        switches = replace(switches, mirror=False)
        if self.forward is not None and switches == AS_TRAINED:
            return self.forward
        with BUILDING:
            if switches not in self._runners:
                (layers,) = self._segments(self._last, switches)
                self._runners[switches] = CudaGraphRunner(layers) if self.cuda_graphs else layers
            return self._runners[switches]

    def _segments(self, names: tuple[str, ...], switches: Switches) -> list[nn.Sequential]:
        """Return the layers up to each of the names, first to last, in their fast form."""
        key = (names, replace(switches, mirror=False))
        with BUILDING:
            if key not in self._built:
                if len(self._built) == MAX_BUILT:  # a server is asked for many sets of layers
                    self._built.pop(next(iter(self._built)))
                self._built[key] = self._build_segments(names, switches)
            return self._built[key]

    def _build_segments(self, names: tuple[str, ...], switches: Switches) -> list[nn.Sequential]:
        segments: list[nn.Sequential] = []
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, layer in (self._prepared if self.fused else self.network).named_children():
            if switches.keeps(layer):
                layers[name] = layer
            if name in names:
                segment = nn.Sequential(layers)
                segments.append(fuse(segment) if self.fused else segment)
                layers = OrderedDict()
        return segments


def assemble(
    spec: Spec,
    weights: dict[str, Tensor],
    statistics: Statistics,
    classes: tuple[str, ...],
    *,
    step: int = 0,
    precision: Precision = "auto",
    device: Device | torch.device | str | None = None,
) -> Predictor:
    """Put a trained network together from what a run's folder holds, or one like it.

    It runs on the GPU where there is one, unless another `device` is given. Raises `ConfigError`
    when the weights are another network's.
    """
    device = Device.best() if device is None else Device.named(device)
    network = build(spec, seed=None)
    network.load_weights(weights)
    return Predictor(
        device.place_network(network).eval(),
        classes,
        make_normaliser(spec.pixels, statistics, spec.image_size, device.torch),
        statistics.mean_image.shape[-1],
        step,
        device,
        device.choose_dtype(precision),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Ensemble(Predictor):
    """Several networks asked together: class probabilities are averaged, as the paper's "5 CNNs".

    All but probabilities (layers, pixels, the names of classes) is the first network's.
    """

    members: tuple[Predictor, ...]
    weights: tuple[float, ...]  # of the members, summing to 1
    orders: tuple[tuple[int, ...], ...]  # where each member has the first one's classes

    @torch.inference_mode()
    def probabilities(
        self, images: Tensor, crops: int = 1, switches: Switches = AS_TRAINED
    ) -> Tensor:
        """Return the weighted mean of what the members return, ``(N, classes)``."""
        of_each = self.probabilities_of_each(images, crops, switches)
        return torch.tensordot(torch.tensor(self.weights).to(of_each), of_each, 1)

    def probabilities_of_each(
        self, images: Tensor, crops: int = 1, switches: Switches = AS_TRAINED
    ) -> Tensor:
        """Return the probabilities that each member gives, ``(members, N, classes)``."""
        each = zip(self.members, self.orders, strict=True)
        return torch.stack(
            [one.probabilities(images, crops, switches)[:, list(order)] for one, order in each]
        )

    def fit(self, data: "PreparedData", split: ImageSplit) -> "Ensemble":
        """Return the ensemble with the weights that suit a split best, one crop an image.

        Raises
        ------
        DataError
            As `evaluate` does.
        """
        return replace(self, weights=tuple(fit_weights(*self.ask_each(data, split))))

    def ask_each(self, data: "PreparedData", split: ImageSplit) -> tuple[Tensor, Tensor]:
        """Return what each member gives for a split, one crop an image, and the labels.

        ``(members, N, classes)`` and ``(N,)``; raises as `evaluate` does.
        """
        self.check_size(data)
        known = torch.tensor([self._label(name) for name in data.classes])
        found, labels = [], []
        for batch in evaluation_batches(split, batch_size=64):
            found.append(self.probabilities_of_each(batch.images).cpu())
            labels.append(known[batch.labels])
        return torch.cat(found, 1), torch.cat(labels)


def ask_together(
    predictors: Sequence[Predictor], weights: Sequence[float] | None = None
) -> Predictor:
    """Return a predictor of the mean probabilities of several; of one, itself.

    Parameters
    ----------
    predictors : sequence of Predictor
        Of the same classes, in any order, and the same size of images; their networks may differ.
    weights : sequence of float, optional
        How much each counts; equal by default.

    Raises
    ------
    ConfigError
        When classes or sizes differ, or the weights are not one for each and above 0 in all.
    """
    first, *others = predictors
    weights = [1.0] * len(predictors) if weights is None else weights
    if len(weights) != len(predictors) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ConfigError(
            f"{len(weights)} weights ({', '.join(f'{x:g}' for x in weights)}) cannot be given to "
            f"{len(predictors)} networks.",
            "Give one for each, none of them negative and not all 0.",
        )
    for number, other in enumerate(others, start=2):
        if differing := sorted({*first.classes} ^ {*other.classes}):
            raise ConfigError(
                f"Networks 1 and {number} do not know the same classes: one of them lacks "
                f"{differing[0]!r}{f' and {len(differing) - 1} more' * (len(differing) > 1)}.",
                "Probabilities are averaged class by class: name runs of the same classes.",
            )
        if other.resize_to != first.resize_to:
            raise ConfigError(
                f"Networks 1 and {number} take images prepared at {first.resize_to} and "
                f"{other.resize_to} pixels.",
                "Name runs of one size.",
            )
    if not others:
        return first
    return Ensemble(
        **{field.name: getattr(first, field.name) for field in fields(first)},
        members=tuple(predictors),
        weights=tuple(weight / sum(weights) for weight in weights),
        orders=tuple(tuple(map(one.classes.index, first.classes)) for one in predictors),
    )


WEIGHT_STEP = 0.05  # of `fit_weights`, as in 2012 (facts 0)


def fit_weights(of_each: Tensor, labels: Tensor) -> list[float]:
    """Return weights of networks with which the fewest images are wrong, by coordinate search.

    As the source of 2012 combined its networks (facts 0): from equal weights, one after the other
    is moved by `WEIGHT_STEP` as long as that helps; equally many errors are decided by the loss.

    Parameters
    ----------
    of_each : Tensor
        ``(members, N, classes)``: probabilities of images that nothing else is judged by.
    labels : Tensor
        ``(N,)`` int64.
    """

    def cost(weights: list[float]) -> tuple[float, float]:
        mean = torch.tensordot(torch.tensor(weights).to(of_each), of_each, 1) / sum(weights)
        wrong = (mean.argmax(1) != labels).sum()
        return float(wrong), float(F.nll_loss(mean.clamp(min=1e-12).log(), labels))

    weights = [1.0] * len(of_each)
    best, improved = cost(weights), True
    while improved:
        improved = False
        for member, step in product(range(len(weights)), (WEIGHT_STEP, -WEIGHT_STEP)):
            moved = [*weights]
            moved[member] = round(max(0.0, moved[member] + step), 2)
            if any(moved) and (found := cost(moved)) < best:
                best, weights, improved = found, moved, True
    return [weight / sum(weights) for weight in weights]


def quantize(
    predictor: Predictor, images: "Tensor | PreparedData", *, compiled: bool = False
) -> Predictor:
    """Return a predictor in int8 on the processor; its `network` stays as it is.

    Raises `ConfigError` when the predictor is on a GPU, or the processor has no int8 products;
    `DataError` when there is no training image, or the data was prepared at another size.

    Parameters
    ----------
    predictor : Predictor
        On the processor.
    images : Tensor or PreparedData
        What the scales of the activations are taken from: ``(N, resize_to, resize_to, 3)`` uint8
        RGB, a few hundred images of the training data, or a data set with training images, of
        which 256 are taken.
    compiled : bool
        Whether what stands between the layers is compiled, which takes a while and pays for
        thousands of images.
    """
    if not isinstance(images, Tensor):
        predictor.check_size(images)
        images = sample_evenly(images.train, CALIBRATION)
    plain = predictor.in_float32
    forward = quantize_network(plain.network, plain.centre_crops(images), compiled=compiled)
    return replace(plain, forward=forward)
