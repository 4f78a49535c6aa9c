"""A network in training: from a run's newest checkpoint, to the next one, tested in between."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from alexnet import device as devices
from alexnet.data.augment import Normaliser, make_normaliser
from alexnet.data.loader import Batch, evaluation_batches
from alexnet.data.shards import PreparedData, Split
from alexnet.errors import DivergedError, RunError, TrainingError
from alexnet.evaluation import Evaluation, evaluate
from alexnet.network import AlexNet, build, freeze
from alexnet.predictor import Predictor
from alexnet.training.checkpoint import Checkpoint, Writer, copies
from alexnet.training.distributed import DistributedContext
from alexnet.training.execution import Execution
from alexnet.training.history import History
from alexnet.training.layout import Layout, lay_out
from alexnet.training.optimizer import (
    group_rates,
    make_optimizer,
    set_group_rates,
    set_velocity,
    velocity,
)
from alexnet.training.run import Run

EVALUATION_BATCH = 64  # images; ten views of each are taken one after another


@dataclass(frozen=True, slots=True)
class TrainState:
    """A network in training, and what it needs to be saved and tested."""

    run: Run
    data: PreparedData
    ranks: DistributedContext
    network: AlexNet  # whole; where the processes divide it, only to be tested
    layout: Layout
    optimizer: torch.optim.SGD
    normalise: Normaliser
    device: torch.device
    kind: torch.dtype  # of the matrix products
    history: History

    def save(self, step: int, writer: Writer) -> None:
        """Have a checkpoint of this moment written; every process must ask for it at once.

        Raises
        ------
        DivergedError
            When the weights are no numbers any more.
        """
        local = self.layout.replica.network
        weights = self.layout.divided.whole(local.state_dict())
        carried = self.layout.divided.whole(velocity(self.optimizer, local))
        if not self.ranks.first:
            return
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise DivergedError(
                f"The weights are no numbers after step {step}, so it is not saved.",
                "Train again into another --out at a lower rate (--lr).",
            )
        state = {"rates": group_rates(self.optimizer), **self.history.state()}
        writer.save(
            lambda: Checkpoint(step, copies(weights), copies(carried), state),
            best=self.history.best,
        )

    def test(
        self, split: Split, views: int, progressed: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Test the network as it is now; each process tests its part of the images.

        `progressed` is called after every batch.
        """
        local = self.layout.replica.network
        if local is not self.network:
            self.network.load_state_dict(self.layout.divided.whole(local.state_dict()))
        self.network.eval()
        predictor = Predictor(
            self.network,
            self.data.classes,
            self.normalise,
            self.data.manifest.size,
            0,
            devices.Device(self.device),
            self.kind,
            cuda_graphs=False,  # other threads use the GPU meanwhile
        )
        predict = partial(predictor.probabilities, crops=views)
        size = EVALUATION_BATCH
        while True:
            batches = _each(evaluation_batches(split, size, self.ranks.part), progressed)
            try:
                result = evaluate(predict, batches, self.data.classes, crops=views)
                break
            except RuntimeError as error:
                if not devices.out_of_memory(error) or size == 1:
                    raise
                size //= 2
        self.network.train()
        return result.added(self.ranks.added)


def restored(
    run: Run, data: PreparedData, ranks: DistributedContext, execution: Execution
) -> tuple[TrainState, Checkpoint, str]:
    """Return the network as the newest checkpoint has it, or with its initial weights.

    The mean image is the run's, not the data's: one that begins with another run's weights has
    the mean of the images that these were trained on.

    Returns
    -------
    tuple
        The network in training; the checkpoint, of step 0 where there is none; and why steps are
        slower than they could be, or nothing.

    Raises
    ------
    RunError
        When the run has checkpoints and none of them is good, or one of another network, or has
        lost the weights that it is to begin with.
    ConfigError
        When the recipe freezes a layer that is not there, or all of them.
    """
    spec, recipe = run.config.spec, run.config.recipe
    data = replace(data, statistics=run.statistics())
    devices.keep_freed_memory()
    devices.use_threads(recipe.threads)
    start = run.newest() or Checkpoint(0, {})
    _same_everywhere(start.step, ranks)
    network = build(spec, seed=None if start.weights else recipe.seed)
    if start.weights:
        _fill(network, start.weights, run)
    elif run.config.initial_weights:
        raise RunError(
            f"The run {str(run.folder)!r} has lost the weights that it is to begin with.",
            "Give --from again.",
        )
    freeze(network, recipe.freeze)
    network = devices.place_network(network, ranks.device)
    compiles, complaint = devices.can_compile(ranks.device) if recipe.compile else (False, "")
    layout = lay_out(network, ranks, execution, compile=compiles)
    optimizer = make_optimizer(layout.replica.network, recipe)
    if start.state:
        carried = layout.divided.local(start.velocity)
        set_velocity(optimizer, layout.replica.network, carried)
        set_group_rates(optimizer, start.state["rates"])
    normalise = make_normaliser(spec.pixels, data.statistics, spec.image_size, ranks.device)
    mean = normalise.mean.contiguous(memory_format=torch.channels_last)  # as the pixels lie
    trainee = TrainState(
        run,
        data,
        ranks,
        network,
        layout,
        optimizer,
        replace(normalise, mean=mean),
        ranks.device,
        devices.choose_dtype(recipe.precision, ranks.device),
        History.of(start.state),
    )
    return trainee, start, complaint


def _each(batches: Iterator[Batch], then: Callable[[], None]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        then()


def _same_everywhere(step: int, ranks: DistributedContext) -> None:
    newest = ranks.most(step)
    if ranks.most(int(newest != step)):
        raise TrainingError(
            f"The processes do not see the same checkpoints: step {step} here, {newest} elsewhere.",
            "The run's folder (--out) must lie where all machines of the training see it.",
        )


def _fill(network: AlexNet, weights: Mapping[str, Tensor], run: Run) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        wrong = str(error).splitlines()[-1].strip()
        raise RunError(
            f"The checkpoint in {str(run.checkpoints)!r} is of another network ({wrong})",
            "Choose another --out.",
        ) from error
