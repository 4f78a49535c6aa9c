"""``alexnet train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alexnet.data.shards import PreparedData
    from alexnet.recipes import Recipe
    from alexnet.spec import Spec
    from alexnet.training.run import Run


def train(
    data: str | None = None,
    *,
    network: str | None = None,
    recipe: str | None = None,
    out: Path | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    compile: bool | None = None,
    max_steps: int | None = None,
    checkpoint_every: int | None = None,
    threads: int | None = None,
    set: list[str] | None = None,
) -> int:
    """Train a network and test it; on a run that exists, go on where it stopped.

    Example: `alexnet train photographs/ --out runs/mine --epochs 40`

    Ctrl-C and SIGTERM save and stop; the same command goes on. Where a default is not given
    below it is the recipe's; `fast` is made for a few thousand photographs, `paper` and `as_run`
    for ImageNet.

    Parameters
    ----------
    data
        A prepared data set, or any source that `alexnet prepare` takes; `elpv` is the default. A
        source is prepared into the cache first.
    network
        single (default), paper, as_run, caffe, caffenet, torchvision, cifar_quick, cifar_local.
    recipe
        fast (default), paper, as_run, caffe or cifar.
    out
        The run's folder; by default `runs/` and the name of the data.
    epochs
        Passes over the training images. fast: 32; paper, as_run, caffe: 90; cifar: 20.
    batch_size
        Images a step. fast: 64; paper, as_run, cifar: 128; caffe: 256.
    lr
        Learning rate, the highest of the schedule. cifar: 0.003; every other recipe: 0.01.
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
    set
        A field of the recipe to change, NAME=VALUE, or of the network, network.NAME=VALUE:
        `colour_noise=0`, `network.conv1.norm.k=1`, `network.dropout.rate=0`. Repeatable.
    """
    from alexnet.cli.screen import Screen

    flags = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "precision": precision,
        "compile": compile,
        "max_steps": max_steps,
        "checkpoint_every": checkpoint_every,
        "threads": threads,
    }
    asked = {name: value for name, value in flags.items() if value is not None}
    with Screen() as screen:
        run, prepared = opened(data, out, network, recipe, asked, set or [], screen)
    return follow(run, prepared)


def opened(
    data: str | None,
    out: Path | None,
    network: str | None,
    recipe: str | None,
    asked: dict[str, Any],
    settings: list[str],
    screen: Any,
) -> "tuple[Run, PreparedData]":
    """Open the run that the flags describe, and its data; what is not said is as it was."""
    from dataclasses import replace

    from alexnet.data.cache import ready
    from alexnet.data.options import Options
    from alexnet.recipes import recipe_named
    from alexnet.training.run import Run, RunConfig, made_with
    from alexnet.variants import network_named

    old = Run.open(out).config if out and (out / "config.json").is_file() else None
    plan: Recipe = recipe_named(recipe or "fast") if recipe or not old else old.recipe
    spec: Spec = network_named(network or "single") if network or not old else old.spec
    plan, spec = with_settings(plan.with_(**asked), spec, settings)
    where = data or (old.data if old else "elpv")
    options = Options(size=prepared_size(spec))
    prepared = ready(
        where,
        options,
        seed=plan.seed,
        say=screen.say,
        report=screen.prepared,
        fetched=screen.fetched,
    )
    check_size(prepared.manifest.size, spec)
    config = RunConfig(
        spec=replace(spec, classes=len(prepared.classes)),
        recipe=plan,
        classes=prepared.classes,
        data=str(prepared.root.resolve()),
        data_fingerprint=prepared.manifest.fingerprint,
        data_size=prepared.manifest.size,
        made_with=made_with(),
    )
    folder = out or Path("runs") / prepared.manifest.name
    return Run.start(folder, config, prepared.statistics), prepared


def with_settings(recipe: "Recipe", spec: "Spec", settings: list[str]) -> "tuple[Recipe, Spec]":
    """Apply NAME=VALUE settings to the recipe, or with ``network.`` before them to the network."""
    from alexnet.errors import ConfigError
    from alexnet.values import with_setting

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
    if spec.image <= 32:
        return 32
    return 256 if 200 <= spec.image <= 240 else round(spec.image * 256 / 227)


def check_size(size: int, spec: "Spec") -> None:
    """See that the network's crops fit into the prepared images, and are most of them."""
    from alexnet.errors import DataError

    if not spec.image <= size < 2 * spec.image:
        raise DataError(
            f"The data was prepared at {size} pixels and network {spec.name!r} sees {spec.image}.",
            f"Prepare it with --size {prepared_size(spec)}, or name the source itself.",
        )


def follow(run: "Run", data: "PreparedData") -> int:
    """Train, showing and logging what happens; return the exit status."""
    from alexnet.cli.screen import Screen
    from alexnet.training.events import Stopped
    from alexnet.training.fit import fit

    with Screen(run.say) as screen:
        spec, recipe = run.config.spec, run.config.recipe
        counts = ", ".join(f"{n:,} {split}" for split, n in data.manifest.counts.items())
        screen.say(f"data     {data.manifest.name}: {spec.classes} classes, images: {counts}")
        screen.say(f"network  {spec.name}: {spec.parameters:,} parameters")
        screen.say(f"recipe   {recipe.name}: {recipe.epochs:g} epochs of batch {recipe.batch_size}")
        screen.say(f"images   {data.splits['train'].decoding()}")
        screen.say(f"run      {run.folder}")
        if data.validation is data.held_out:
            screen.say(
                f"watching the {data.held_out.name} split; no choice is made by it"
                if recipe.schedule != "plateau"
                else f"the rate drops by the error on the {data.held_out.name} split, as in 2012"
            )
        for event in fit(run, data):
            screen.event(event)
            if isinstance(event, Stopped):
                return 128 + event.signal
    return 0
