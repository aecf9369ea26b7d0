"""Whether image sets that should have nothing in common have, as far as their files tell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from ..data.images import Images

__all__ = ["check_sizes", "shared_pictures", "warn_of_shared"]


def check_sizes(sets: Sequence[Images]) -> None:
    """Raises ValueError for a set whose images have another size than those of the first set."""
    first = sets[0]
    for other in sets[1:]:
        if other.size != first.size:
            raise ValueError(
                f"The images of {other.name} are {other.size} pixels wide and those of {first.name} "
                f"{first.size}. Read all of them in one size."
            )


def shared_pictures(sets: Sequence[Images]) -> list[str]:
    """A sentence for every two sets that share files; the same picture in two files is not looked for (the
    audit does).
    """
    found = []
    for one, other in combinations(sets, 2):
        shared = sum(Path(file).is_file() for file in {*one.files} & {*other.files})
        if shared:
            found.append(
                f"{shared:,} of the {len(other):,} images of {other.name} are images of {one.name}, too: "
                "what is measured on them says nothing."
            )
    return found


def warn_of_shared(sets: Sequence[Images]) -> None:
    """Warns of every two sets that share files."""
    for sentence in shared_pictures(sets):
        warnings.warn(sentence, stacklevel=3)
