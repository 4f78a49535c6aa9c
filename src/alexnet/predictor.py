"""A trained run and an image -> ranked classes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet import device as devices
from alexnet.data.augment import Normaliser, iter_crops, make_normaliser
from alexnet.data.decode import open_image, resize_and_crop
from alexnet.data.imagenet import describe_classes
from alexnet.data.loader import Batch, evaluation_batches, sample_evenly
from alexnet.data.statistics import Statistics
from alexnet.errors import DataError, ImageError, did_you_mean
from alexnet.evaluation import Evaluation, evaluate, probabilities
from alexnet.fused import fuse_for_inference
from alexnet.network import AlexNet, build
from alexnet.quantization import quantize_network
from alexnet.spec import Spec
from alexnet.training.checkpoint import Checkpoint
from alexnet.training.run import Run, RunConfig

if TYPE_CHECKING:  # pyarrow, for one photograph
    from alexnet.data.shards import PreparedData

CALIBRATION = 256  # training images that fix the scales of int8
Picture = str | Path | bytes | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and how probable the network finds it."""

    name: str  # readable: a wnid's first word
    probability: float  # 0 to 1
    label: str  # the class as the data names it: a folder or a wnid


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network with its preprocessing and the names of its classes."""

    network: AlexNet
    classes: tuple[str, ...]
    normalise: Normaliser
    prepared: int  # side of the square that the views are cut from, in pixels
    step: int  # of the checkpoint
    device: torch.device
    kind: torch.dtype
    forward: Callable[[Tensor], Tensor] | None = None  # pixels to logits, in place of `network`

    @property
    def spec(self) -> Spec:
        """What the network is."""
        return self.network.spec

    def predict(self, image: Picture, *, top: int = 5, crops: int = 10) -> list[Prediction]:
        """Rank the classes for an image.

        Parameters
        ----------
        image : str, Path, bytes, PIL.Image.Image or ndarray
            A file of any format that Pillow reads, its content, an image, or uint8 RGB of
            ``(H, W, 3)``. Files are turned upright as their EXIF orientation says.
        top : int
            How many classes to return, the most probable first.
        views : int
            1, the centre, or 10, as the paper tested (section 4.1).

        Raises
        ------
        ImageError
            When it cannot be read or is no image.
        """
        ranked = self.probabilities(torch.from_numpy(self.pixels(image))[None], crops)[0]
        chances, labels = ranked.sort(descending=True)
        names = describe_classes(self.classes)
        return [
            Prediction(names[label], chance, self.classes[label])
            for chance, label in zip(chances.tolist()[:top], labels.tolist(), strict=False)
        ]

    def pixels(self, image: Picture) -> NDArray[np.uint8]:
        """Return an image as the network's data was prepared, ``(prepared, prepared, 3)`` RGB.

        Raises
        ------
        ImageError
            When it cannot be read or is no image.
        """
        return np.array(resize_and_crop(_opened(image), self.prepared))

    def probabilities(self, images: Tensor, crops: int = 1) -> Tensor:
        """Map ``(N, prepared, prepared, 3)`` uint8 RGB to ``(N, classes)`` probabilities."""
        return probabilities(
            self.forward or self.network,
            images.to(self.device),
            self.normalise,
            size=self.spec.image_size,
            count=crops,
            kind=self.kind,
        )

    def evaluate(self, data: "PreparedData", *, crops: int = 10) -> Evaluation:
        """Test on the held-out split of a prepared data set; classes are matched by name.

        Raises
        ------
        DataError
            When the data has a class that the run does not know, or was prepared at another size.
        """
        self.check_size(data)
        labels = torch.tensor([self._label(name) for name in data.classes])
        batches = (
            Batch(batch.images, labels[batch.labels], batch.indices)
            for batch in evaluation_batches(data.held_out, batch_size=64)
        )
        network = devices.CudaGraphRunner(fuse_for_inference(self.network, self.kind))
        fast = replace(self, forward=self.forward or network)
        return evaluate(
            partial(fast.probabilities, crops=crops),
            batches,
            self.classes,
            crops=crops,
            device=self.device,
        )

    def check_size(self, data: "PreparedData") -> None:
        """See that data was prepared at the size that the network's views are cut from.

        Raises
        ------
        DataError
            When it was prepared at another one.
        """
        if data.manifest.size != self.prepared:
            raise DataError(
                f"The data was prepared at {data.manifest.size} pixels and the run's at "
                f"{self.prepared}.",
                f"Prepare it with --size {self.prepared}, or name the source itself.",
            )

    def _label(self, name: str) -> int:
        if name not in self.classes:
            raise DataError(
                f"The data has a class {name!r} that the run was not trained on.",
                did_you_mean(name, self.classes),
            )
        return self.classes.index(name)


def load(
    run: str | Path,
    *,
    device: torch.device | None = None,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
) -> Model:
    """Load a trained run.

    Parameters
    ----------
    run : str or Path
        The folder that ``alexnet train --out`` made.
    device : torch.device, optional
        Where the network is to run; by default the GPU where there is one.
    precision : {"auto", "fp32", "bf16"}, optional
        Of the matrix products; by default the recipe's. For int8 see `quantize`.

    Raises
    ------
    RunError
        When the folder is no run, or has no checkpoint that can be loaded.
    """
    opened = Run.open(run)
    model = assemble(opened.config, opened.weights(), opened.statistics(), device=device)
    if precision is None:
        return model
    return replace(model, kind=devices.choose_dtype(precision, model.device))


def assemble(
    config: RunConfig,
    checkpoint: Checkpoint,
    statistics: Statistics,
    *,
    device: torch.device | None = None,
) -> Model:
    """Put a trained network together from what a run's folder holds, or one like it."""
    device = device or devices.best_device()
    network = build(config.spec, seed=None)
    network.load_state_dict(checkpoint.weights)
    return Model(
        devices.place_network(network, device).eval(),
        config.classes,
        make_normaliser(config.spec.pixels, statistics, config.spec.image_size, device),
        statistics.mean_image.shape[-1],
        checkpoint.step,
        device,
        devices.choose_dtype(config.recipe.precision, device),
    )


def quantize(model: Model, images: "Tensor | PreparedData", *, compiled: bool = False) -> Model:
    """Return a model that predicts in int8 on the processor; its `network` stays as it is.

    Parameters
    ----------
    model : Model
        On the processor.
    images : Tensor or PreparedData
        What the scales of the activations are taken from: ``(N, prepared, prepared, 3)`` uint8
        RGB, a few hundred images of the training data, or a data set with training images, of
        which 256 are taken.
    compiled : bool
        Whether what stands between the layers is compiled, which takes a while and pays for
        thousands of images.

    Raises
    ------
    ConfigError
        When the model is on a GPU, or the processor has no int8 products.
    DataError
        When there is no training image, or the data was prepared at another size.
    """
    if not isinstance(images, Tensor):
        model.check_size(images)
        if "train" not in images.splits:
            raise DataError(
                "The data has no training images to calibrate int8 with.",
                "Name the data that the run was trained on.",
            )
        images = sample_evenly(images.splits["train"], CALIBRATION)
    centre = next(iter_crops(images.to(model.device), model.spec.image_size, 1))
    forward = quantize_network(model.network, model.normalise(centre), compiled=compiled)
    return replace(model, forward=forward, kind=torch.float32)


def _opened(image: Picture) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert("RGB")
    if isinstance(image, bytes):
        return open_image(image)
    try:
        return open_image(Path(image).read_bytes())
    except ImageError as error:
        raise ImageError(f"{str(image)!r} is not usable: {error}") from None
    except OSError as error:
        raise ImageError(f"{str(image)!r} cannot be read ({error.strerror}).") from None
