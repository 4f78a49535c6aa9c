"""A photograph changed by less than one sees, so that one's own network errs: for teaching."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.errors import ConfigError
from alexnet.explain.attribution import plain_network
from alexnet.predictor import Predictor

ATTACK_STEPS = 10  # of projected gradient descent, each a quarter of the bound


@dataclass(frozen=True, eq=False)
class Fooled:
    """A view of a photograph before and after."""

    before: NDArray[np.uint8]  # (side, side, 3) RGB
    after: NDArray[np.uint8]
    probabilities: tuple[NDArray[np.float32], NDArray[np.float32]]  # (classes,) of either

    @property
    def change(self) -> NDArray[np.int16]:
        """What was added, grey levels."""
        return self.after.astype(np.int16) - self.before


def fool(
    predictor: Predictor, prepared: NDArray[np.uint8], method: Literal["fgsm", "pgd"] = "pgd",
    *, epsilon: int = 4, target: int | None = None,
) -> Fooled:  # fmt: skip
    """Change every pixel by at most some grey levels, so that the network errs.

    Raises `ConfigError` when the bound or the method cannot be.

    Parameters
    ----------
    predictor : Predictor
        A trained run of one's own.
    prepared : ndarray
        ``(resize_to, resize_to, 3)`` uint8 RGB, of `Predictor.load_pixels`.
    method : {"fgsm", "pgd"}
        One step along the sign of the gradient (Goodfellow and others, 2014), or several, each
        brought back within the bound (Madry and others, 2017).
    epsilon : int
        The bound, 1 to 255 grey levels. The result is of whole levels, as a file is.
    target : int
        The class to be mistaken for; by default any but the most probable.
    """
    if not 1 <= epsilon <= 255:
        raise ConfigError(f"The bound is {epsilon} grey levels.", "It must be 1 to 255.")
    if method not in ("fgsm", "pgd"):
        raise ConfigError(f"There is no attack {method!r}.", "There are fgsm and pgd.")
    network = plain_network(predictor)
    view = torch.from_numpy(prepared)[predictor.view, predictor.view]
    first = view.permute(2, 0, 1)[None].float().to(predictor.device.torch)
    with torch.no_grad():
        before = network(predictor.normalise(first)).softmax(1)
    aim = torch.tensor([int(before.argmax()) if target is None else target], device=first.device)
    steps, rate = (1, epsilon) if method == "fgsm" else (ATTACK_STEPS, max(1.0, epsilon / 4))
    x = first
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(network(predictor.normalise(x)), aim)
        (gradient,) = torch.autograd.grad(loss if target is None else -loss, x)
        moved = x.detach() + rate * gradient.sign()
        x = (first + (moved - first).clamp(-epsilon, epsilon)).round().clamp(0, 255)
    with torch.no_grad():
        after = network(predictor.normalise(x)).softmax(1)
    drawn = x[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    return Fooled(view.numpy(), drawn, (before[0].cpu().numpy(), after[0].cpu().numpy()))
