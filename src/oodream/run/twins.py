"""Twins of imagined outliers: drawn as they are, but from the name of their class, not from their vectors."""

from __future__ import annotations

from dataclasses import replace

from torch.nn.functional import normalize

from ..data.images import Images
from .artifacts import Run
from .generated import ImageFiles
from .lacking import lacks_outlier_images
from .layout import TWINS

__all__ = ["has_twins", "twin_files", "twins"]


def has_twins(run: Run) -> bool:
    """Whether imagined outliers have known twins, which training shows."""
    c = run.config
    return not lacks_outlier_images(run, imagined=True) and c.reconstruct.twins and c.reconstruct.frac > 0


def twin_files(run: Run) -> ImageFiles:
    """The files of the outliers' twins: the same classes, noise and known images to begin at, and T(y) in
    place of the vectors.
    """
    vectors, tokens_CD = run.vectors, normalize(run.book.tokens_CD, dim=1)
    return ImageFiles(
        folder=run.layout.twins,
        vectors=replace(vectors, z_MD=tokens_CD[vectors.y_M], kind="inlier"),
        names=run.book.names,
        format=run.config.decode.format,
    )


def twins(run: Run) -> Images:
    """All outliers' twins in the order of these, labelled with their classes.

    Raises StoreError when some are missing or damaged.
    """
    run.folder.check_record(TWINS)
    return twin_files(run).images("twins", run.config.size, f"oodream decode {run.folder.path} --verify")
