"""The verb `audit`: what makes out-of-distribution (OOD) numbers misleading, looked for in the image sets
themselves.

Image sets in, findings out. Checked are images that are in two sets; traces of files and pixels by which sets
differ whatever their images show; known classes that OOD sets name; equal images with different labels; a
control of reconstructed ID images whose AUROC is not 50 %; the look of outliers; a latent space that cannot
be drawn. No image is removed, and nothing is known here of runs, folders or pages. A finding is a reason to
look, with examples to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..core.errors import DataError, listed
from ..core.results import Row
from ..data.images import ImageSet
from .control import reconstruction_control
from .duplicates import duplicates
from .finding import GROUPS, SEVERITIES, Audit, Finding
from .look import look_control
from .names import named_classes
from .shortcuts import shortcuts

__all__ = ["audit"]


def audit(
    sets: Sequence[ImageSet],
    classes: Sequence[str],
    *,
    words: Mapping[str, Sequence[str]] | None = None,
    control: Sequence[Row] = (),
    drawn: Sequence[Finding] = (),
    seed: int = 0,
) -> Audit:
    """Audits image sets whose groups are those of GROUPS; one of them must be "test".

    `classes` are the known classes' names, `words` their other names by class. `control` are rows measured on
    reconstructed ID images, and `drawn` what `drawability` finds. Sets of group "control" are made from test
    images, so only their statistics are looked at; those of group "shift" are to look otherwise, so only
    their duplicates are. `seed` draws the samples and folds of the statistics.

    Raises ValueError for another group, two sets of one name or no test set, and DataError for an empty set
    or sets of different sizes.
    """
    if unknown := {s.group for s in sets} - {*GROUPS}:
        raise ValueError(f"An image set's group is one of {', '.join(GROUPS)}, not {min(unknown)!r}.")
    if twice := [name for name, n in Counter(s.name for s in sets).items() if n > 1]:
        raise ValueError(f"Two image sets have the name {twice[0]!r}.")
    if empty := [s.name for s in sets if not len(s.images)]:
        raise DataError(f"There are no images in {listed(empty)}. Leave the set out or fill it.")
    if len(sizes := {s.images.size for s in sets}) > 1:
        raise DataError(
            f"The sets have images of different sizes ({listed(map(str, sorted(sizes)))} pixels). "
            "Read them at one size."
        )
    if "test" not in (s.group for s in sets):
        raise ValueError("An audit compares with the ID test images: name a set of group 'test'.")
    findings = [
        *duplicates(sets),
        *shortcuts(sets, seed),
        *named_classes(sets, classes, words or {}),
        *reconstruction_control(control),
        *look_control(sets, seed),
        *drawn,
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(sets={s.name: s.group for s in sets}, findings=tuple(findings))
