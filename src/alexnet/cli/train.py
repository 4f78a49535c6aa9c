"""``alexnet train``: a request becomes a run, and the run is trained."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from alexnet.cli.common import apply_settings, parse_duration
from alexnet.errors import ConfigError, DataError, RunError, TrainingError
from alexnet.recipes import Recipe, recipe_named

if TYPE_CHECKING:
    from alexnet.cli.console import Console
    from alexnet.data.shards import PreparedData
    from alexnet.spec import Spec
    from alexnet.training.distributed import DistributedContext
    from alexnet.training.fit import Execution
    from alexnet.training.run import Pretrained, Run, RunConfig

TRAINING_IMAGES = "training_images"  # in what a run was made with: a checksum of the images


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a training is asked to be; what is not said is the recipe's, or the run's.

    A flag that is called as a field of the recipe is short for ``--set`` of that field.

    Parameters
    ----------
    network
        single (default), paper, as_run, as_run_six, as_run_apart, caffe, caffenet, torchvision,
        cifar_quick, cifar_local.
    recipe
        fast (default), fast-gpu, paper, as_run, caffe or cifar.
    out
        The run's folder; by default `runs/` and the name of the data.
    from_
        A run, or a model folder, whose weights to begin with. What the network is, and what it
        expects of pixels, come from there; for other classes the last layer is drawn anew.
    freeze
        Layers whose weights stay as they are: conv1-conv5, or conv1,conv2; none (default).
    epochs
        Passes over the training images. fast, fast-gpu: 32; paper, as_run, caffe: 90; cifar: 20.
    batch_size
        Images a step, over all processes. fast: 64; paper, as_run, cifar: 128; fast-gpu,
        caffe: 256. With auto it is the recipe's, taken in the largest pieces that fit into memory.
    lr
        Learning rate, the highest of the schedule. cifar: 0.003; fast-gpu: 0.02; others: 0.01.
    seed
        Of the weights, the order, the crops and the dropout. Every recipe: 0.
    precision
        auto (default) is bf16 where the device has it, else fp32; weights are float32.
    compile
        The fast form of the network, by torch.compile where that gains. Every recipe: yes.
    max_steps
        Stop after so many steps, whatever the epochs. Every recipe: none.
    checkpoint_every
        Steps between checkpoints. Every recipe: 500.
    threads
        Processor threads. Every recipe: all.
    on_nan
        stop (default), or skip a batch whose loss is no number; the tenth in a row ends it.
    set
        A field of the recipe to change, NAME=VALUE, or of the network, network.NAME=VALUE:
        `pca_jitter=0`, `network.conv1.norm.k=1`, `network.dropout.rate=0`. Repeatable.
    towers
        2: each pair of processes has one tower each, as the two GPUs of 2012 did.
    hybrid
        Divide the fully-connected layers among the processes, the images before them.
    micro_batch
        Images that a process takes at once, gradients being added; by default all it has, and
        half of them after memory has run out.
    budget
        Take so long in all, from the start of the command to the end of the test: 15m. As many
        epochs are trained as fit, up to the recipe's, and the schedule is laid into them. Where
        those are few, smaller batches do better: of six epochs --batch-size 32 --lr 0.007.
    max_time
        Save and exit with status 75 after so long: 90s, 30m, 4h.
    timeout
        Processes that get no further for so long give each other up.
    log
        Where the curves go besides metrics.jsonl: tensorboard (default), wandb, mlflow, trackio.
    override
        Go on with a run although it was begun with other settings.
    """

    network: str | None = None
    recipe: str | None = None
    out: Path | None = None
    from_: Annotated[Path | None, Parameter(name="--from")] = None
    freeze: str | None = None
    epochs: float | None = None
    batch_size: int | Literal["auto"] | None = None
    lr: float | None = None
    seed: int | None = None
    precision: Literal["auto", "fp32", "bf16"] | None = None
    compile: bool | None = None
    max_steps: int | None = None
    checkpoint_every: int | None = None
    threads: int | None = None
    on_nan: Literal["stop", "skip"] | None = None
    set: list[str] | None = None
    towers: int | None = None
    hybrid: bool = False
    micro_batch: int | None = None
    budget: str | None = None
    max_time: str | None = None
    timeout: str = "10m"
    log: Literal["tensorboard", "wandb", "mlflow", "trackio"] = "tensorboard"
    override: bool = False

    def execution(self) -> "Execution":
        """Return how the training is carried out; nothing of it is kept in the run."""
        from alexnet.training.fit import AUTO, Execution
        from alexnet.training.trackers import check_installed

        check_installed(self.log)
        towers = self.towers
        if towers not in (None, 1, 2):
            raise ConfigError(f"--towers {towers} cannot be had.", "The network of 2012 has 2.")
        if towers == 2 and self.hybrid:
            raise ConfigError("--towers and --hybrid divide the network in two ways.", "Give one.")
        return Execution(
            layout="towers" if towers == 2 else "hybrid" if self.hybrid else "data",
            micro_batch=AUTO if self.batch_size == "auto" else self.micro_batch,
            max_time=parse_duration(self.max_time) if self.max_time else None,
            budget=parse_duration(self.budget) if self.budget else None,
            timeout=parse_duration(self.timeout),
            tracker=self.log,
        )

    def existing(self) -> "RunConfig | None":
        """Return what the run was begun with, if it is there."""
        from alexnet.training.run import Run

        if self.out is None or not (self.out / "config.json").is_file():
            return None
        return Run.open(self.out).config

    def plan(
        self, existing: "RunConfig | None", first: "Pretrained | None"
    ) -> "tuple[Recipe, Spec]":
        """Return the recipe and the network, of a run that exists or begins with `first`."""
        from alexnet.variants import network_named

        begun = first.config if first else existing
        recipe = (
            existing.recipe if existing and not self.recipe else recipe_named(self.recipe or "fast")
        )
        if begun and not self.network:
            spec = begun.spec
        else:
            spec = network_named(self.network or ("paper" if self.towers == 2 else "single"))
        names = {field.name for field in fields(Recipe)}
        flags = {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}
        if self.freeze is not None:
            flags["freeze"] = _parse_layers(self.freeze)
        if self.batch_size == "auto":
            del flags["batch_size"]
        recipe = recipe.with_(**{name: value for name, value in flags.items() if value is not None})
        for_network = [text for text in self.set or [] if text.startswith("network.")]
        for_recipe = [text for text in self.set or [] if text not in for_network]
        recipe = apply_settings(recipe, for_recipe)
        spec = apply_settings(spec, for_network, prefix="network.")
        return recipe.with_(freeze=spec.frozen(*recipe.freeze)), spec


def train(
    data: str | None = None,
    *,
    request: Annotated[TrainRequest, Parameter(name="*")] = TrainRequest(),
) -> int:
    """Train a network and test it; on a run that exists, go on where it stopped.

    Example: `alexnet train photographs/ --out runs/mine --epochs 40`

    Ctrl-C and SIGTERM save and stop; the same command goes on. SIGUSR1 and --max-time save and
    exit with status 75: start the same again. Several processes: `alexnet launch`.

    Where a default is not given below it is the recipe's; `fast` is made for a few thousand
    photographs, `paper` and `as_run` for ImageNet.

    Parameters
    ----------
    data
        A prepared data set, or any source that `alexnet prepare` takes; `elpv` is the default. A
        source is prepared into the cache first.
    """
    from alexnet.cli.console import Console
    from alexnet.training.distributed import join_processes

    execution = request.execution()
    with join_processes(execution.timeout) as context:
        if context.is_main:
            with Console() as console, _report_failure(context):
                run, prepared = open_run(data, request, console)
                context.store_object(
                    "run", [str(run.folder.resolve()), str(prepared.root.resolve())]
                )
        else:
            run, prepared = _wait_for_main(context)
        return _follow(run, prepared, context, execution)


def open_run(
    data: str | None, request: TrainRequest, console: "Console"
) -> "tuple[Run, PreparedData]":
    """Open or begin the run that is asked for, and its data."""
    from alexnet.data.prepare import Options, open_or_prepare
    from alexnet.training.checkpoint import Checkpoint
    from alexnet.training.run import Run, RunConfig, software_versions

    existing = request.existing()
    first = _find_pretrained(request, existing)
    recipe, spec = request.plan(existing, first)
    begun = first.config if first else existing
    fine_tuned = first or (existing and existing.initial_weights)
    prepared = open_or_prepare(
        data or (Run.open(request.out).find_data() if existing and request.out else "elpv"),
        Options(size=begun.data_size if begun and fine_tuned else prepared_size(spec)),
        seed=recipe.seed,
        say=console.say,
        report=console.prepared,
        fetched=console.fetched,
    )
    check_size(prepared.manifest.size, spec, first)
    if not prepared.manifest.options.get("exif", True):
        console.say(
            "The images were prepared as they lie (--no-exif). Photographs whose EXIF data turn "
            "them are turned whenever the network is asked about them."
        )
    images = prepared.splits["train"].identity
    if existing and existing.made_with.get(TRAINING_IMAGES, images) != images:
        console.say("The training images are not those that this run has begun with.")
    if existing and not first and request.override:
        pairs = zip(existing.classes, prepared.classes, strict=False)
        renamed = [f"{was!r} {now!r}" for was, now in pairs if was != now]
        if renamed:
            console.say(f"Classes are called otherwise from now on: {', '.join(renamed[:5])}.")
    origin = first.origin if first else existing.initial_weights if existing else None
    config = RunConfig(
        spec=replace(spec, num_classes=len(prepared.classes)),
        recipe=recipe,
        classes=prepared.classes,
        data=str(prepared.root.resolve()),
        data_fingerprint=prepared.manifest.fingerprint,
        data_size=prepared.manifest.size,
        initial_weights=origin,
        made_with=software_versions(recipe.threads) | {TRAINING_IMAGES: images},
    )
    statistics, begin = prepared.statistics, None
    if first:
        statistics = first.statistics_for(statistics)
        begin = Checkpoint(0, first.weights_for(spec, prepared.classes, recipe.seed))
        if not first.same_classes(prepared.classes):
            console.say(f"The classes are others, so {spec.output_name} is drawn anew.")
    folder = request.out or Path("runs") / prepared.manifest.name
    run = Run.start(folder, config, statistics, first=begin, override=request.override)
    return run, prepared


def _find_pretrained(request: TrainRequest, existing: "RunConfig | None") -> "Pretrained | None":
    """Open the weights to begin with; none where they are drawn, or the run has its own copy."""
    from alexnet.interop.model_folder import WEIGHTS, read
    from alexnet.training.checkpoint import checkpoint_folders
    from alexnet.training.run import Pretrained, Run

    folder = request.from_
    if folder is None:
        return None
    if request.network:
        raise ConfigError(
            "--network and --from both say what the network is.", "Leave out --network."
        )
    origin = existing.initial_weights if existing else None
    same = origin is not None and origin.path == str(folder.resolve())
    if same and request.out and checkpoint_folders(request.out / "checkpoints"):
        return None
    if not folder.is_dir():
        raise RunError(
            f"There is no folder {str(folder)!r} to begin from.", "Name a run or a model folder."
        )
    if not (folder / WEIGHTS).is_file():
        return Pretrained.from_run(Run.open(folder))
    found = read(folder)
    file = folder / WEIGHTS
    return Pretrained.from_folder(folder, file, found.config, found.checkpoint, found.statistics)


def prepared_size(spec: "Spec") -> int:
    """Return the side to prepare images at: 256 for 227, as in the paper, and in proportion."""
    if spec.image_size <= 32:
        return 32
    return 256 if 200 <= spec.image_size <= 240 else round(spec.image_size * 256 / 227)


def check_size(size: int, spec: "Spec", first: "Pretrained | None" = None) -> None:
    """See that prepared images fit: the first weights' mean image, else the network's crops.

    Raises `DataError` when the crops are larger than the images, or under half of them.
    """
    if first and size != first.config.data_size:
        wanted = first.config.data_size
        raise DataError(
            f"The data was prepared at {size} pixels, and that of {first.origin.path!r} at "
            f"{wanted}.",
            f"Prepare it with --size {wanted}, or name the source itself.",
        )
    if not spec.image_size <= size < 2 * spec.image_size:
        raise DataError(
            f"The data was prepared at {size} pixels and network {spec.name!r} sees "
            f"{spec.image_size}.",
            f"Prepare it with --size {prepared_size(spec)}, or name the source itself.",
        )


def _parse_layers(text: str) -> tuple[str, ...]:
    """Return the names and ranges of layers in a text with commas; "none" has none."""
    return () if text == "none" else tuple(filter(None, text.replace(" ", "").split(",")))


@contextlib.contextmanager
def _report_failure(context: "DistributedContext") -> Iterator[None]:
    """Tell the processes that wait for this one when it fails."""
    try:
        yield
    except BaseException as error:
        context.store_object("run", str(error) or type(error).__name__)
        raise


def _wait_for_main(context: "DistributedContext") -> "tuple[Run, PreparedData]":
    """Open what rank 0 has prepared; fail where rank 0 could not."""
    from alexnet.data.shards import open_prepared
    from alexnet.training.run import Run

    found: Any = context.wait_for_object("run")
    if isinstance(found, str):
        raise TrainingError(f"Rank 0 could not begin: {found}")
    run, prepared = Run.open(found[0]), open_prepared(Path(found[1]))
    if prepared.manifest.fingerprint != run.config.data_fingerprint:
        raise TrainingError(
            f"The data in {found[1]!r} is not that of rank 0.",
            "Prepare it on a file system that all machines see, or copy it to each.",
        )
    return run, prepared


def _follow(
    run: "Run", data: "PreparedData", context: "DistributedContext", execution: "Execution"
) -> int:
    """Train, showing and logging what happens; return the exit status."""
    from alexnet.cli.console import Console
    from alexnet.training.fit import fit
    from alexnet.training.monitor import Notice, Stopped

    if not context.is_main:
        for event in fit(run, data, context, execution):
            if isinstance(event, Notice) and event.own:
                print(f"rank {context.rank}: {event.text}", file=sys.stderr, flush=True)
            if isinstance(event, Stopped):
                return event.status
        return 0
    with Console(run.log_line) as console:
        _describe_training(run, data, context, console)
        for event in fit(run, data, context, execution):
            console.event(event)
            if isinstance(event, Stopped):
                return event.status
    return 0


def _describe_training(
    run: "Run", data: "PreparedData", context: "DistributedContext", console: "Console"
) -> None:
    """Say what is trained, on what and how."""
    spec, recipe, first = run.config.spec, run.config.recipe, run.config.initial_weights
    among = f" over {context.world_size} processes" if context.world_size > 1 else ""
    console.say(f"data     {data.manifest.describe()}")
    console.say(f"network  {spec.name}: {spec.parameters:,} parameters")
    if first:
        console.say(f"weights  of {first.path}")
    if recipe.freeze:
        console.say(f"frozen   {', '.join(recipe.freeze)}")
    console.say(
        f"recipe   {recipe.name}: {recipe.epochs:g} epochs of batch {recipe.batch_size}{among}"
    )
    console.say(f"images   {data.splits['train'].describe_decoding()}")
    console.say(f"run      {run.folder}")
    if data.validation is data.held_out:
        console.say(
            f"watching the {data.held_out.name} split; no choice is made by it"
            if recipe.schedule != "plateau"
            else f"the rate drops by the error on the {data.held_out.name} split, as in 2012"
        )
