"""``results.jsonl``: one line a finished run, added whole, read whatever a kill has left."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from alexnet.claims.claim import Result
from alexnet.config import from_json
from alexnet.errors import AlexNetError
from alexnet.files import translate_os_error
from alexnet.old_names import dict_with_old_names
from alexnet.recipes import Recipe
from alexnet.spec import Spec

FILE = "results.jsonl"


def key_of(spec: Spec, recipe: Recipe, fingerprint: str) -> str:
    """Return what names a run: a hash of its network, its recipe with the seed, and its data."""
    plain = replace(recipe, threads=None)  # changes no result
    values = [
        dict_with_old_names(from_json(Spec, asdict(spec))),  # 1 and 1.0 are one value
        dict_with_old_names(from_json(Recipe, asdict(plain))),
    ]
    what = json.dumps([*values, fingerprint], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def append(path: Path, result: Result) -> None:
    """Add a result's line; it is on the disk when this returns.

    A line that a kill has cut short is ended first, so that it spoils none but itself.

    Raises
    ------
    AlexNetError
        When the disk is full or cannot be written to.
    """
    line = json.dumps(asdict(result)).encode() + b"\n"
    with translate_os_error(path), path.open("ab+") as file:
        if file.tell() and _last_byte(path) != b"\n":
            line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def read(path: Path) -> list[Result]:
    """Return the results of a file, none where there is none; the newest of each key.

    Lines that are cut short are passed over, and so are those of a version whose networks or
    recipes have fields that this one lacks: it cannot repeat them. Keys are made anew, so that a
    run stays the same one when a later version's networks or recipes have more fields.
    """
    if not path.is_file():
        return []
    found: dict[str, Result] = {}
    for line in path.read_bytes().splitlines():
        try:
            result = from_json(Result, json.loads(line))
        except (ValueError, AlexNetError):
            continue
        key = key_of(result.spec, result.recipe, str(result.data.get("fingerprint")))
        found[key] = replace(result, key=key)
    return list(found.values())


def named(results: Iterable[Result], arms: dict[str, tuple[str, ...]]) -> list[Result]:
    """Return the results of some keys, each with the arms that it stands for now."""
    return [result.with_arms(*arms[result.key]) for result in results if result.key in arms]
