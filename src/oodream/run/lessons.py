"""What a run teaches detectors that use outliers: its outliers as training shows them, and known images shown
alike, for the run's own classifiers and for other networks.

Decoded images lack detail and are soft whatever they show. As they are, they teach a detector the decoder's
look; so each is lent the detail of a known image, and both kinds are softened, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..config import TrainConfig
from ..core.errors import DataError, StoreError
from ..data.images import Images, from_pixels
from ..detection.fit import Lesson
from ..synthesis.names import disjoint
from ..training.batches import as_shown
from ..training.sources import Source, as_trained, spread
from .artifacts import Run
from .folder import read_manifest
from .job import Job
from .lacking import lacks_outlier_images
from .sources import shown_sources

__all__ = ["beside_others", "held", "lesson_of", "own_lesson", "run_of"]

MOST = 5000  # images of each kind


def own_lesson(job: Job) -> Lesson:
    """For the run's own classifiers: the images that the regularized one is shown as unknown, and beside them
    the training images and the share of reconstructions that it is shown. Each is drawn once.

    Raises ValueError, which says why, for a run that has no images of outliers.
    """
    _check(job.run)
    *known, beside = shown_sources(job)
    size, seed = job.config.size, job.config.seed
    n = min(MOST, len(known[0].data))
    counts = [n if source.role == "known" else round(source.ratio * n) for source in known]
    parts = [_shown(source, count, size, seed) for source, count in zip(known, counts, strict=True)]
    return Lesson(outliers=_shown(beside, MOST, size, seed), known=[part for part in parts if len(part)])


def lesson_of(run: Run, fit: Images) -> Lesson:
    """A lesson of the run's outliers for any network whose ID training images are `fit`.

    Where the run's own images cannot be read any more, its outliers are softened and lack detail.
    Raises StoreError for a run that has no images of outliers, and DataError where all show classes of `fit`.
    """
    _check(run, StoreError)
    job = Job(run.config, run.folder.path)
    train, shown = run.config.train, "shown as its training shows them"
    try:
        beside = shown_sources(job)[-1]
    except DataError as error:
        shown = f"softened, and without the detail of known images, for these cannot be read ({error})"
        data = run.images.subset(run.keep_mask)
        varied = run.config.regularize.outlier_aug_prob
        beside = as_trained(Source(role="outlier", data=data, outlier_aug_prob=varied), train)
    size, seed = run.config.size, run.config.seed
    outliers = _shown(beside, MOST, size, seed)
    names = [""] * len(outliers)
    if run.imagines and run.config.sample.sampler == "words":
        kept = [line["words"][0] for line, keep in zip(run.provenance, run.keep_mask, strict=True) if keep]
        names = [kept[row] for row in spread(len(outliers), beside.data)]
    remark = f"outliers of {run.folder.path}, {shown}"
    return beside_others(outliers, names, fit, size=size, train=train, seed=seed, remark=remark)


def beside_others(
    outliers: Images,
    names: Sequence[str],
    fit: Images,
    *,
    size: int,
    train: TrainConfig,
    seed: int,
    remark: str,
) -> Lesson:
    """The outliers of a run beside the ID training images `fit` of any network, which are shown alike, in the
    run's `size` where they are larger. All have the size of `fit`.

    `names` say what each outlier shows, where that was imagined by name, else nothing; those that show one of
    the classes of `fit` are left out. `remark` says in words whose they are and how they are shown. Raises
    DataError where none is left.
    """
    others = set(disjoint(list({*names}), fit.classes))
    left = outliers.subset(torch.tensor([not name or name in others for name in names]))
    if not len(left):
        raise DataError(f"All outliers show classes that this network knows: {remark}.")
    small = held(fit.subset(spread(min(len(fit), MOST), fit)), min(size, fit.size))
    known = _shown(as_trained(Source(role="known", data=small), train), MOST, fit.size, seed)
    remark = f"{len(left):,} {remark}"
    if len(left) < len(outliers):
        remark += f" ({len(outliers) - len(left):,} that show a class by name are left out)"
    return Lesson(outliers=held(left, fit.size), known=[known], remark=remark)


def run_of(folder: Path, plugins: bool = False) -> Run | None:
    """The run that a folder is, or whose imagined images it holds (RUN/images/imagined); None for another."""
    if read_manifest(folder) is not None:
        return Run.open(folder, plugins)
    home = folder.resolve().parent.parent
    if read_manifest(home) is None:
        return None
    run = Run.open(home, plugins)
    return run if run.layout.imagined("images").resolve() == folder.resolve() else None


def _check(run: Run, error: type[Exception] = ValueError) -> None:
    if lacking := lacks_outlier_images(run):
        raise error(f"There are no images of outliers in {run.folder.path}: {lacking}.")


def _shown(source: Source, most: int, size: int, seed: int) -> Images:
    """At most so many rows of a source, spread over it, as training shows them, in `size` pixels."""
    assert isinstance(source.data, Images)
    n = min(most, len(source.data))
    images = as_shown(source, seed)
    return held(images.subset(spread(n, images)), size)


def held(images: Images, size: int) -> Images:
    """The same images in another size, held in memory where they fit: they are asked for more than once."""
    if not len(images):
        return replace(images, size=size)
    pixels = images.batch(range(len(images)))
    return from_pixels(images.name, pixels, images.labels, images.classes, size, images.files)
