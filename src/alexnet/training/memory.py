"""How many images go through the network at once, where memory is short."""

import torch

from alexnet import device as devices
from alexnet.errors import TrainingError


class MicroBatch:
    """A number of images that fits; it is halved each time that it turns out not to.

    Gradients are added over micro-batches, so the batch of the recipe stays what it is.

    Parameters
    ----------
    size : int | None
        To begin with; ``None`` for as many as there are.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self.fixed = False  # where other processes would be left waiting by another try
        self._news = ""

    def of(self, images: int) -> int:
        """Return how many of so many images to take at once."""
        return max(1, min(self.size or images, images))

    def halve(self, images: int, error: BaseException) -> None:
        """Take fewer after an error, if that can help.

        Raises
        ------
        TrainingError
            When not even one image fits, or none may be tried again.
        BaseException
            `error` itself, when it is not for want of memory.
        """
        if not devices.out_of_memory(error):
            raise error
        size = self.of(images)
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "MemoryError"
        if size == 1:
            raise TrainingError(
                f"There is not enough memory for a single image ({reason}).",
                "Take a smaller network, or a machine with more memory.",
            ) from error
        if self.fixed:
            raise TrainingError(
                f"There is not enough memory for {size} images at once ({reason}).",
                f"Start again with --micro-batch {size // 2}; the batch stays the same.",
            ) from error
        self.size = size // 2
        self._news = (
            f"Memory is short: {self.size} images are taken at once, the batch is the same."
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def news(self) -> str:
        """Return what there is to tell, once."""
        news, self._news = self._news, ""
        return news
