"""What tests of constant memory share: many files for little, and what is held while they pass."""

import os
import tracemalloc
from collections.abc import Iterable
from pathlib import Path


def many_links(source: Path, folder: Path, count: int) -> Path:
    """A folder in which one PNG file stands under `count` names."""
    folder.mkdir()
    for number in range(count):
        os.link(source, folder / f"{number:05}.png")
    return folder


def held_at_the_end(passing: Iterable[object]) -> int:
    """Bytes that are held when the last few things pass.

    The least of several looks, since a file that is being read ahead comes and goes.
    """
    tracemalloc.start()
    try:
        held = [tracemalloc.get_traced_memory()[0] for _ in passing]
    finally:
        tracemalloc.stop()
    return min(held[-4:])
