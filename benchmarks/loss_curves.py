"""Does speed change what is learned? The loss of the fast step beside the plain float32 step.

Three runs of `alexnet train`, on the same images in the same order: the fast step, the plain one
with the same seed, and the fast one with another seed. Every loss is logged; their running means
are drawn, and the differences are compared: that of the steps with that of the seeds.

    python benchmarks/loss_curves.py DATA --out FOLDER
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from alexnet.device import describe_processor

SMOOTHED = 20  # steps of a running mean
RUNS = {
    "fast": ("--seed", "0"),
    "plain float32": ("--seed", "0", "--precision", "fp32", "--no-compile"),
    "fast, another seed": ("--seed", "1"),
}


def losses(data: str, steps: int, batch: int, flags: tuple[str, ...]) -> list[float]:
    """Train, and return the loss of each step."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, "-m", "alexnet", "train", data, "--out", str(run)]
        command += ["--recipe", "fast", "--epochs", "4", "--batch-size", str(batch), *flags]
        command += ["--max-steps", str(steps), "--set", "log_every=1"]
        command += ["--set", "checkpoint_every=100000", "--set", "validate_every=100"]
        command += ["--set", "test_crops=1"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of photographs, or any other source")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = {name: losses(asked.data, asked.steps, asked.batch, f) for name, f in RUNS.items()}
    window = np.ones(SMOOTHED) / SMOOTHED
    smooth = {name: np.convolve(values, window, "valid") for name, values in found.items()}
    steps = np.abs(smooth["fast"] - smooth["plain float32"])
    seeds = np.abs(smooth["fast"] - smooth["fast, another seed"])
    summary = {
        "difference of the steps": {"mean": steps.mean(), "largest": steps.max()},
        "difference of the seeds": {"mean": seeds.mean(), "largest": seeds.max()},
        "batch": asked.batch,
        "steps": asked.steps,
        "smoothed over": SMOOTHED,
        "machine": describe_processor(),
        "losses": found,
    }
    Path(asked.out, "losses.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(smooth, asked.out / "losses.png")
    print({name: value for name, value in summary.items() if name.startswith("difference")})


def draw(smooth: dict[str, np.ndarray], path: Path) -> None:
    """Draw the running means into one picture."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    looks = {"fast": "-", "plain float32": "--", "fast, another seed": ":"}
    for (name, values), colour in zip(smooth.items(), ("C0", "C1", "0.6"), strict=True):
        at = np.arange(len(values)) + SMOOTHED
        axes.plot(at, values, looks[name], color=colour, label=name)
    axes.set(xlabel="step", ylabel=f"training loss, mean of {SMOOTHED} steps")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
