"""Readable names for ImageNet's classes: what the words of a WordNet synset are."""

import importlib.resources
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

WNID = re.compile(r"n\d{8}")


@lru_cache(maxsize=1)
def words() -> dict[str, str]:
    """Return the words of ImageNet's 21,842 synsets by wnid: ``n01440764``: tench, Tinca tinca."""
    text = (importlib.resources.files("alexnet.data") / "wordnet.txt").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.splitlines() if line[0] != "#")
    return {wnid: names for wnid, names in lines}  # noqa: C416 -- typed


def readable(classes: Sequence[str]) -> tuple[str, ...]:
    """Return a name to show for each class, no two the same.

    A wnid becomes the first word of its synset, with the wnid behind it where two of the classes
    would be called the same (ImageNet has two cranes); any other class keeps its name.

    Examples
    --------
    >>> readable(["n01440764", "n02012849", "n03126707", "shirt"])
    ('tench', 'crane (n02012849)', 'crane (n03126707)', 'shirt')
    """
    if not any(WNID.fullmatch(name) for name in classes):
        return tuple(classes)
    first = {name: words().get(name, name).split(", ")[0] for name in classes}
    shared = {name for name, times in Counter(first.values()).items() if times > 1}
    return tuple(
        f"{first[name]} ({name})" if first[name] in shared and name in words() else first[name]
        for name in classes
    )
