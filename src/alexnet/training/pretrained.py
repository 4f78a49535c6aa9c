"""A trained network that another training begins with: its weights, and its pixels."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from alexnet.data.statistics import Statistics
from alexnet.errors import ConfigError
from alexnet.files import sha256
from alexnet.network import build
from alexnet.spec import Spec
from alexnet.training.checkpoint import WEIGHTS, Checkpoint
from alexnet.training.run import InitialWeights, Run, RunConfig


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A trained network, and what it was trained on."""

    config: RunConfig
    weights: dict[str, Tensor]
    statistics: Statistics
    origin: InitialWeights

    @classmethod
    def of(
        cls, folder: Path, file: Path, config: RunConfig, found: Checkpoint, statistics: Statistics
    ) -> "Pretrained":
        """Return what lies in a folder, whose weights are in a file."""
        origin = InitialWeights(path=str(folder.resolve()), sha256=sha256(file))
        return cls(config, found.weights, statistics, origin)

    def same_classes(self, classes: tuple[str, ...]) -> bool:
        """Whether the last layer can stay: the same names in the same order."""
        return classes == self.config.classes

    def weights_for(self, spec: Spec, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the weights, with a last layer for other classes.

        Parameters
        ----------
        spec : Spec
            The network that is to begin with them; of any number of classes.
        classes : tuple of str
            Where they are not those it was trained on, in the same order, the last layer is
            drawn anew, all of it.
        seed : int
            Of that layer.

        Raises
        ------
        ConfigError
            When the weights are of another network.
        """
        network = build(replace(spec, num_classes=self.config.spec.num_classes), None)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            wrong = str(error).splitlines()[-1].strip()
            raise ConfigError(
                f"The weights in {self.origin.path!r} are of another network ({wrong})",
                "Leave out the --set network... that changes the size of a layer.",
            ) from error
        if not self.same_classes(classes):
            network.reset_classifier(len(classes), seed=seed)
        return dict(network.state_dict())

    def statistics_for(self, data: Statistics) -> Statistics:
        """Return what a training on other data needs: the network's mean image, the data's colours.

        The first layer has learned from pixels less that mean, and its biases know no other. The
        colour noise imitates the light on the images that are shown, so its axes are theirs.
        """
        return replace(data, mean_image=self.statistics.mean_image)


def of_run(run: Run) -> Pretrained:
    """Return the newest good weights of a run, and what belongs to them.

    Raises
    ------
    RunError
        When it has none.
    """
    found = run.weights()
    file = run.checkpoints / f"step-{found.step:08}" / WEIGHTS
    return Pretrained.of(run.folder, file, run.config, found, run.statistics())
