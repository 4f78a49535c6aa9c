"""A network in training: restored from a run's newest checkpoint, saved to the next, tested."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import islice

import torch

from alexnet.data.augment import Normaliser, make_normaliser
from alexnet.data.loader import Batch, evaluation_batches
from alexnet.data.shards import PreparedData, Split
from alexnet.device import Device, is_out_of_memory, keep_freed_memory, use_threads
from alexnet.errors import ConfigError, DivergedError, RunError, TrainingError
from alexnet.evaluation import Evaluation, evaluate
from alexnet.kernels.native import unavailable_reason
from alexnet.network import AlexNet, build, freeze
from alexnet.predictor import Predictor
from alexnet.training.checkpoint import Checkpoint, CheckpointWriter, copy_to_host, load_newest
from alexnet.training.distributed import DistributedContext
from alexnet.training.layout import Layout, LayoutName, lay_out
from alexnet.training.optimizer import (
    MomentumSGD,
    last_rates,
    make_optimizer,
    momentum_buffers,
    resume,
)
from alexnet.training.run import Run

EVALUATION_BATCH = 64  # images; ten crops of each are taken one after another
MAX_LOSSES = 200  # that are remembered; their median is what is usual


@dataclass(slots=True)
class History:
    """What a training remembers of its past; with weights and momentum, all of its state."""

    errors: list[float] = field(default_factory=list)  # of every validation: the plateau
    # schedule is a function of them
    losses: list[float] = field(default_factory=list)  # of the last steps
    refused: int = 0  # steps in a row that were not made
    best: int | None = None  # step of the validation with the lowest error
    plan: tuple[int, int, float] | None = None  # what a budget made of the schedule: a `Plan`
    spent: float = 0.0  # seconds of the budget

    def add_loss(self, loss: float) -> None:
        """Remember a loss that is as it should be."""
        self.losses = [*self.losses[-MAX_LOSSES + 1 :], loss]
        self.refused = 0


@dataclass(frozen=True, slots=True)
class TrainState:
    """A network in training, and what it needs to be saved and tested."""

    run: Run
    data: PreparedData
    context: DistributedContext
    network: AlexNet  # whole; where the processes divide it, only to be tested
    layout: Layout
    optimizer: MomentumSGD
    normalise: Normaliser
    device: Device
    dtype: torch.dtype  # of the matrix products
    history: History

    @property
    def machine(self) -> str:
        """What the last bits of a step depend on: what computes it, and how many processes."""
        among = self.context.world_size
        return self.device.describe_rounding() + (f", {among} processes" if among > 1 else "")

    def save(self, step: int, writer: CheckpointWriter) -> None:
        """Have a checkpoint of this moment written; every process must ask for it at once.

        On a GPU it is copied, and written while the training goes on. On a processor writing takes
        a small part of the steps between two checkpoints, and a copy would be another 500 MB, so
        the training waits. Weights that are no numbers any more are a `DivergedError`.
        """
        local = self.layout.replica.network
        weights = self.layout.division.join(local.state_dict())
        buffers = self.layout.division.join(momentum_buffers(self.optimizer, local))
        if not self.context.is_main:
            return
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise DivergedError(
                f"The weights are no numbers after step {step}, so it is not saved.",
                "Train again into another --out at a lower rate (--lr).",
            )
        state = {
            "rates": last_rates(self.optimizer),
            "machine": self.machine,
            **asdict(self.history),
        }
        copy = partial(copy_to_host, share=self.device.is_cpu)
        writer.save(
            lambda: Checkpoint(step, copy(weights), copy(buffers), state), best=self.history.best
        )
        if self.device.is_cpu:
            writer.wait()

    def test(
        self, split: Split, crops: int, progressed: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Test the network as it is now; each process tests its part of the images.

        `progressed` is called after every batch.
        """
        local = self.layout.replica.network
        if local is not self.network:
            self.network.load_state_dict(self.layout.division.join(local.state_dict()))
        predict = partial(self._predictor().probabilities, crops=crops)
        size = EVALUATION_BATCH
        while True:
            batches = _each(evaluation_batches(split, size, self.context.part), progressed)
            try:
                result = evaluate(predict, batches, self.data.classes, crops=crops)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                size //= 2
        self.network.train()
        return result.added(self.context.all_reduce_sum)

    def estimate_test_seconds(self, split: Split, crops: int) -> float:
        """Return how long a test would take here, from one batch with one crop of each image."""
        predict = self._predictor().probabilities
        (batch,) = islice(evaluation_batches(split, EVALUATION_BATCH, self.context.part), 1)
        seconds = []
        for _ in range(2):  # the first also builds the fast form
            begun = time.monotonic()
            predict(batch.images, crops=1)
            seconds.append(time.monotonic() - begun)
        self.network.train()
        images = -(-len(split) // self.context.world_size)
        return seconds[0] + seconds[1] * crops * images / len(batch.images)

    def _predictor(self) -> Predictor:
        self.network.eval()
        return Predictor(
            self.network,
            self.data.classes,
            self.normalise,
            self.data.manifest.size,
            0,
            self.device,
            self.dtype,
            fused=self.run.config.recipe.compile,
        )


def restore(
    run: Run, data: PreparedData, context: DistributedContext, layout_name: LayoutName
) -> tuple[TrainState, Checkpoint, str]:
    """Return the network as the newest checkpoint has it, or with its initial weights.

    With it come the checkpoint without its tensors, of step 0 where there is none, and why steps
    are slower than they could be, or nothing. The mean image is the run's, not the data's: one that
    begins with another run's weights has the mean of the images that these were trained on.

    Raises `RunError` when the run has checkpoints and none of them is good, or one of another
    network, or has lost the weights that it is to begin with.
    """
    spec, recipe = run.config.spec, run.config.recipe
    data = replace(data, statistics=run.load_statistics())
    keep_freed_memory()
    use_threads(recipe.threads)
    start = load_newest(run.checkpoints) or Checkpoint(0, {})
    _check_same_step(start.step, context)
    network = build(spec, seed=None if start.weights else recipe.seed)
    if start.weights:
        try:
            network.load_weights(start.weights)
        except ConfigError as error:
            raise RunError(
                f"{str(run.checkpoints)!r} cannot be gone on with: {error.what}",
                "Choose another --out.",
            ) from error
    elif run.config.initial_weights:
        raise RunError(
            f"The run {str(run.folder)!r} has lost the weights that it is to begin with.",
            "Give --from again.",
        )
    freeze(network, recipe.freeze)
    device = context.device
    network = device.place_network(network)
    dtype = device.choose_dtype(recipe.precision)
    fast, complaint = _check_fast_form(device, dtype) if recipe.compile else (False, "")
    layout = lay_out(network, context, layout_name, fast=dtype if fast else None)
    optimizer = make_optimizer(layout.replica.network, recipe)
    history = History()
    if start.state:
        remembered = dict(start.state)
        buffers = layout.division.take_part(start.momentum_buffers)
        resume(optimizer, layout.replica.network, buffers, remembered.pop("rates"))
        known = {field.name for field in fields(History)}
        history = History(**{k: v for k, v in remembered.items() if k in known})
    normalise = make_normaliser(spec.pixels, data.statistics, spec.image_size, device.torch)
    mean = normalise.mean.contiguous(memory_format=torch.channels_last)  # as the pixels lie
    state = TrainState(
        run,
        data,
        context,
        network,
        layout,
        optimizer,
        replace(normalise, mean=mean),
        device,
        dtype,
        history,
    )
    return state, replace(start, weights={}, momentum_buffers={}), complaint  # 500 MB fewer


def _check_fast_form(device: Device, dtype: torch.dtype) -> tuple[bool, str]:
    """Return whether networks have a fast form here, and why it is none or not the fastest."""
    missing = unavailable_reason() if device.is_cpu else ""
    works, complaint = not missing, ""
    if device.gains_by_compiling(dtype):
        works, complaint = device.can_compile()
    if missing and not complaint:
        complaint = f"The kernels for this processor cannot be used: steps are slower ({missing})."
    return works, complaint


def _each(batches: Iterator[Batch], then: Callable[[], None]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        then()


def _check_same_step(step: int, context: DistributedContext) -> None:
    newest = context.all_reduce_max(step)
    if context.all_reduce_max(int(newest != step)):
        raise TrainingError(
            f"The processes do not see the same checkpoints: step {step} here, {newest} elsewhere.",
            "The run's folder (--out) must lie where all machines of the training see it.",
        )
