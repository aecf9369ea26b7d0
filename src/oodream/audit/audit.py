"""The verb `audit`: what makes out-of-distribution (OOD) numbers lie, looked for in the image sets themselves.

Pictures that are in two sets; traces of files and pixels by which sets differ whatever they show; known classes that OOD sets
name; equal pictures with different labels; a reconstructed-ID control that is not at 50 %. Image sets in, findings out: nothing is
removed, and nothing is known here of runs, folders or pages. A finding is a reason to look, with examples to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.errors import DataError, listed
from ..core.results import Row
from ..data.images import Images
from .control import controlled
from .duplicates import duplicates
from .finding import GROUPS, SEVERITIES, Audit
from .names import named
from .shortcuts import separated


def audit(
    sets: Mapping[str, tuple[str, Images]], classes: Sequence[str], *,
    words: Mapping[str, Sequence[str]] | None = None, control: Sequence[Row] = (), seed: int = 0,
) -> Audit:  # fmt: skip
    """Findings about image sets {name: (group, images)}; the groups are those of GROUPS, and "test" must be among them.

    `classes` are the known classes' names, `words` other names of theirs by class. `control` are rows measured on reconstructed ID
    images. Sets of group "control" are made from test images: only their statistics are looked at. `seed` draws the samples and
    folds of the statistics. ValueError for another group, no test set, an empty set or sets of different sizes.
    """
    if unknown := {group for group, _ in sets.values()} - {*GROUPS}:
        raise ValueError(f"An image set's group is one of {', '.join(GROUPS)}, not {sorted(unknown)[0]!r}.")
    if empty := [name for name, (_, images) in sets.items() if not len(images)]:
        raise DataError(f"There are no images in {listed(empty)}. Leave the set out or fill it.")
    if len(sizes := {images.size for _, images in sets.values()}) > 1:
        raise DataError(
            f"The sets have images of different sizes ({listed(map(str, sorted(sizes)))} pixels). Read them at one."
        )
    if "test" not in (group for group, _ in sets.values()):
        raise ValueError("An audit compares with the ID test images: name a set of group 'test'.")
    found = [
        *duplicates(sets),
        *separated(sets, seed),
        *named(sets, classes, words or {}),
        *controlled(control),
    ]
    found.sort(key=lambda f: SEVERITIES.index(f.severity))
    return Audit(sets={name: group for name, (group, _) in sets.items()}, findings=tuple(found))
