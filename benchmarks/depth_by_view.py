"""Whether depth shows nothing at the scale `night` because conv3 already sees the whole image.

    python benchmarks/depth_by_view.py SOURCE OUT [--seeds 3]

SOURCE is CIFAR-10 (a folder, its Parquet files). The claims `depth-conv3` and `depth-conv4` are run
as at `night`, on the same images at twice the size: prepared at 64 pixels, in crops of 48. A unit
of conv3 sees 27 pixels then of 48, where it sees 27 of 24, of conv4 35, of conv5 43; all else is
the scale's, but for first weights of fc6, which has four times as many inputs. Run it again to go
on. OUT gets `results.jsonl` and the report.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from alexnet.claims.experiments import depth
from alexnet.claims.grid import run_grid
from alexnet.claims.report import judge_claim, write_report
from alexnet.claims.scales import NIGHT, Scale
from alexnet.cli.claims import format_table, open_grid


def double(scale: Scale) -> Scale:
    """Return a scale of images of twice the size, for networks whose signals stay as strong."""
    before = scale.five.spec
    size = 2 * before.image_size
    after = replace(before, name=f"{before.name}_{size}", image_size=size)
    (_, side), (_, longer), first = before.flat, after.flat, before.dense[0]
    after = after.with_layers(first.name, std=first.std * side / longer)  # the root of its inputs
    return replace(scale, image_size=2 * scale.image_size, five=replace(scale.five, spec=after))


def main() -> None:
    """Make the runs that are not there yet, print the table and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    scale = double(NIGHT)
    claims = [replace(one, seeds=asked.seeds) for one in depth(scale) if one.name != "depth-conv5"]
    asked.out.mkdir(parents=True, exist_ok=True)
    with open_grid(
        claims, scale, str(asked.source), asked.out,
        workers=None, threads=None, cluster=None, quiet=False,
    ) as config:  # fmt: skip
        ran, results = run_grid(claims, config)
    print(format_table([judge_claim(one, results) for one in ran], []))
    command = f"python benchmarks/depth_by_view.py {asked.source} {asked.out}"
    note = "The scale night, of images at twice the size: prepared at 64 pixels, in crops of 48."
    write_report(ran, results, asked.out, command=command, notes=[note])


if __name__ == "__main__":
    main()
