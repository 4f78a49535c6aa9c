"""``alexnet train``."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from alexnet.errors import ConfigError

if TYPE_CHECKING:
    from alexnet.cli.screen import Screen
    from alexnet.data.shards import PreparedData
    from alexnet.recipes import Recipe
    from alexnet.spec import Spec
    from alexnet.training.distributed import DistributedContext
    from alexnet.training.fit import Execution
    from alexnet.training.run import Run


def train(
    data: str | None = None,
    *,
    network: str | None = None,
    recipe: str | None = None,
    out: Path | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    freeze: str | None = None,
    epochs: float | None = None,
    batch_size: int | Literal["auto"] | None = None,
    lr: float | None = None,
    seed: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    compile: bool | None = None,
    max_steps: int | None = None,
    checkpoint_every: int | None = None,
    threads: int | None = None,
    on_nan: Literal["stop", "skip"] | None = None,
    set: list[str] | None = None,
    towers: int | None = None,
    hybrid: bool = False,
    micro_batch: int | None = None,
    max_time: str | None = None,
    timeout: str = "10m",
    override: bool = False,
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
    network
        single (default), paper, as_run, caffe, caffenet, torchvision, cifar_quick, cifar_local.
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
        auto (default) is bf16 where the processor has it, else fp32; weights are float32.
    compile
        Fuse the network with torch.compile. Every recipe: yes.
    max_steps
        Stop after so many steps, whatever the epochs. Every recipe: none.
    checkpoint_every
        Steps between checkpoints. Every recipe: 500.
    threads
        Processor threads. Every recipe: all.
    on_nan
        stop (default), or skip a batch whose loss is no number, up to ten in a row.
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
    max_time
        Save and exit with status 75 after so long: 90s, 30m, 4h.
    timeout
        Processes that get no further for so long give each other up.
    override
        Go on with a run although it was begun with other settings.
    """
    from alexnet.cli.screen import Screen
    from alexnet.training.distributed import join_processes
    from alexnet.training.fit import AUTO, Execution

    if towers not in (None, 1, 2):
        raise ConfigError(f"--towers {towers} cannot be had.", "The network of 2012 has 2.")
    if towers == 2 and hybrid:
        raise ConfigError("--towers and --hybrid divide the network in two ways.", "Give one.")
    layout: Literal["data", "towers", "hybrid"] = (
        "towers" if towers == 2 else "hybrid" if hybrid else "data"
    )
    if towers == 2 and not (network or from_ or (out and (out / "config.json").is_file())):
        network = "paper"
    execution = Execution(
        layout=layout,
        micro_batch=AUTO if batch_size == "auto" else micro_batch,
        max_time=seconds(max_time) if max_time else None,
        timeout=seconds(timeout),
    )

    flags = {
        "epochs": epochs,
        "batch_size": None if batch_size == "auto" else batch_size,
        "lr": lr,
        "seed": seed,
        "precision": precision,
        "compile": compile,
        "max_steps": max_steps,
        "checkpoint_every": checkpoint_every,
        "threads": threads,
        "on_nan": on_nan,
        "freeze": None if freeze is None else layers(freeze),
    }
    asked = {name: value for name, value in flags.items() if value is not None}
    with join_processes(execution.timeout) as context:
        if context.is_main:
            with Screen() as screen, told(context):
                run, prepared = opened(
                    data, out, network, recipe, from_, asked, set or [], screen, override=override
                )
                context.store_object(
                    "run", [str(run.folder.resolve()), str(prepared.root.resolve())]
                )
        else:
            run, prepared = heard(context)
        return follow(run, prepared, context, execution)


def seconds(text: str) -> float:
    """Return a duration in seconds: 90, 90s, 30m, 4h or 2d."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        return float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)
    except (ValueError, IndexError):
        raise ConfigError(f"{text!r} is no duration.", "Write it like 90s, 30m or 4h.") from None


def layers(text: str) -> tuple[str, ...]:
    """Return the names and ranges of layers in a text with commas; "none" has none."""
    return () if text == "none" else tuple(filter(None, text.replace(" ", "").split(",")))


@contextlib.contextmanager
def told(context: "DistributedContext") -> Iterator[None]:
    """Tell the processes that wait for this one when it fails."""
    try:
        yield
    except BaseException as error:
        context.store_object("run", str(error) or type(error).__name__)
        raise


def heard(context: "DistributedContext") -> "tuple[Run, PreparedData]":
    """Open what rank 0 has prepared.

    Raises
    ------
    TrainingError
        When rank 0 could not.
    """
    from alexnet.data.shards import open_prepared
    from alexnet.errors import TrainingError
    from alexnet.training.run import Run

    found = context.wait_for_object("run")
    if isinstance(found, str):
        raise TrainingError(f"Rank 0 could not begin: {found}")
    run, prepared = Run.open(found[0]), open_prepared(Path(found[1]))
    if prepared.manifest.fingerprint != run.config.data_fingerprint:
        raise TrainingError(
            f"The data in {found[1]!r} is not that of rank 0.",
            "Prepare it on a file system that all machines see, or copy it to each.",
        )
    return run, prepared


def opened(
    data: str | None,
    out: Path | None,
    network: str | None,
    recipe: str | None,
    start: Path | None,
    asked: dict[str, Any],
    settings: list[str],
    screen: Any,
    *,
    override: bool = False,
) -> "tuple[Run, PreparedData]":
    """Open the run that the flags describe, and its data; what is not said is as it was."""
    from dataclasses import replace

    from alexnet.cli.fine_tune import check_same_size, starting_point
    from alexnet.data.prepare import Options, open_or_prepare
    from alexnet.recipes import recipe_named
    from alexnet.training.run import Run, RunConfig, software_versions
    from alexnet.variants import network_named

    old = Run.open(out).config if out and (out / "config.json").is_file() else None
    source = starting_point(start, network, out, old)
    before = source.config if source else old
    plan: Recipe = recipe_named(recipe or "fast") if recipe or not old else old.recipe
    spec: Spec = network_named(network or "single") if network or not before else before.spec
    plan, spec = with_settings(plan.with_(**asked), spec, settings)
    plan = plan.with_(freeze=spec.frozen(*plan.freeze))
    where = data or (old.data if old else "elpv")
    fine_tuned = source or (old and old.initial_weights)
    options = Options(size=before.data_size if before and fine_tuned else prepared_size(spec))
    prepared = open_or_prepare(
        where,
        options,
        seed=plan.seed,
        say=screen.say,
        report=screen.prepared,
        fetched=screen.fetched,
    )
    if source:
        check_same_size(prepared.manifest.size, source)
    check_size(prepared.manifest.size, spec)
    config = RunConfig(
        spec=replace(spec, num_classes=len(prepared.classes)),
        recipe=plan,
        classes=prepared.classes,
        data=str(prepared.root.resolve()),
        data_fingerprint=prepared.manifest.fingerprint,
        data_size=prepared.manifest.size,
        initial_weights=source.origin if source else old.initial_weights if old else None,
        made_with=software_versions(),
    )
    folder = out or Path("runs") / prepared.manifest.name
    statistics, weights = prepared.statistics, None
    if source:
        statistics = source.statistics_for(statistics)
        weights = source.weights_for(spec, prepared.classes, plan.seed)
        if not source.same_classes(prepared.classes):
            screen.say(f"The classes are others, so {spec.output_name} is drawn anew.")
    run = Run.start(folder, config, statistics, weights=weights, override=override)
    return run, prepared


def with_settings(recipe: "Recipe", spec: "Spec", settings: list[str]) -> "tuple[Recipe, Spec]":
    """Apply NAME=VALUE settings to the recipe, or with ``network.`` before them to the network."""
    from alexnet.config import with_setting

    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} has no value.", "Write --set NAME=VALUE.")
        if name.startswith("network."):
            spec = with_setting(spec, name.removeprefix("network."), text)
        else:
            recipe = with_setting(recipe, name, text)
    return recipe, spec


def prepared_size(spec: "Spec") -> int:
    """Return the side to prepare images at: 256 for 227, as in the paper, and in proportion."""
    if spec.image_size <= 32:
        return 32
    return 256 if 200 <= spec.image_size <= 240 else round(spec.image_size * 256 / 227)


def check_size(size: int, spec: "Spec") -> None:
    """See that the network's crops fit into the prepared images, and are most of them."""
    from alexnet.errors import DataError

    if not spec.image_size <= size < 2 * spec.image_size:
        raise DataError(
            f"The data was prepared at {size} pixels and network {spec.name!r} sees "
            f"{spec.image_size}.",
            f"Prepare it with --size {prepared_size(spec)}, or name the source itself.",
        )


def follow(
    run: "Run", data: "PreparedData", context: "DistributedContext", execution: "Execution"
) -> int:
    """Train, showing and logging what happens; return the exit status."""
    from alexnet.cli.screen import Screen
    from alexnet.training.fit import fit
    from alexnet.training.monitor import Notice, Stopped

    if not context.is_main:
        for event in fit(run, data, context, execution):
            if isinstance(event, Notice) and event.own:
                print(f"rank {context.rank}: {event.text}", file=sys.stderr, flush=True)
            if isinstance(event, Stopped):
                return event.status
        return 0
    with Screen(run.log_line) as screen:
        begin(run, data, context, screen)
        for event in fit(run, data, context, execution):
            screen.event(event)
            if isinstance(event, Stopped):
                return event.status
    return 0


def begin(
    run: "Run", data: "PreparedData", context: "DistributedContext", screen: "Screen"
) -> None:
    """Say what is trained, on what and how."""
    spec, recipe, first = run.config.spec, run.config.recipe, run.config.initial_weights
    counts = ", ".join(f"{n:,} {split}" for split, n in data.manifest.counts.items())
    among = f" over {context.world_size} processes" if context.world_size > 1 else ""
    screen.say(f"data     {data.manifest.name}: {spec.num_classes} classes, images: {counts}")
    screen.say(f"network  {spec.name}: {spec.parameters:,} parameters")
    if first:
        screen.say(f"weights  of {first.path}")
    if recipe.freeze:
        screen.say(f"frozen   {', '.join(recipe.freeze)}")
    screen.say(
        f"recipe   {recipe.name}: {recipe.epochs:g} epochs of batch {recipe.batch_size}{among}"
    )
    screen.say(f"images   {data.splits['train'].describe_decoding()}")
    screen.say(f"run      {run.folder}")
    if data.validation is data.held_out:
        screen.say(
            f"watching the {data.held_out.name} split; no choice is made by it"
            if recipe.schedule != "plateau"
            else f"the rate drops by the error on the {data.held_out.name} split, as in 2012"
        )
