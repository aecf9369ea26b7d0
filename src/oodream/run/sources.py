"""What a run's regularized classifier is trained on: known images, and what stands beside them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.tensors import load_tensors
from ..data.images import Images
from ..training.detail import Detail
from ..training.sources import (
    LatentSet,
    Source,
    as_trained,
    imagined_source,
    known_in_place,
    known_latents,
    real_outliers,
)
from .artifacts import Run
from .job import Job
from .twins import has_twins, twins

__all__ = ["as_many", "kept_rows", "lost_detail", "shown_sources", "sources"]


def shown_sources(job: Job) -> list[Source]:
    """What the regularized classifier is trained on, as it is shown: known images first, and last what stands
    beside them.
    """
    return [as_trained(source, job.config.train) for source in sources(job)]


def sources(job: Job) -> list[Source]:
    """These sources, neither softened nor augmented."""
    c, run, images = job.config, job.run, job.inputs.train
    tokens_CD = normalize(run.book.tokens_CD, dim=1)
    known = Source(role="known", data=images, vectors=tokens_CD if run.kind == "outlier" else None)
    found = [known]
    detail = lost_detail(job) if c.reconstruct.detail else None
    if c.reconstruct.frac > 0:
        data = twins(run) if has_twins(run) else run.reconstructed("train")
        found.append(Source(role="reconstructed", data=data, ratio=c.reconstruct.frac, detail=detail))
    latents = LatentSet(labels=images.labels, read=run.known_latents) if run.has_latents else None
    if latents is not None:
        found.append(known_latents(latents, c.latents))
    if real := job.inputs.real:
        return [*found, real_outliers(real, c.regularize, images)]
    if run.beside == "known":
        taught = images if latents is None else latents
        least = c.latents.min_outlier_weight
        beside = known_in_place(taught, as_many(job), run.kind, c.regularize, images, min_weight=least)
        return [*found, beside]
    if not run.imagines:
        return found
    beside = imagined(job)
    return [*found, beside if run.has_latents else replace(beside, detail=detail)]


def as_many(job: Job) -> int:
    """The known images that stand in the place of imagined ones: as many as would be sampled."""
    sampled = len(job.book.names) * job.config.sample.per_class
    return min(sampled, job.config.regularize.max_outliers or sampled)


def kept_rows(run: Run) -> Tensor:
    """The imagined rows that stay. Raises ValueError where there are none, and nothing is added by hand."""
    rows = run.keep_mask.nonzero()[:, 0]
    if len(rows) or len(run.added):
        return rows
    if rejected := run.selection.curation.rejected:
        raise ValueError(
            f"No {run.kind} is left: a person rejected {len(rejected)} of {len(run.vectors)}, and filters "
            "dropped the others. Keep some in the studio."
        )
    advice = {"outlier": "further from (a lower cosine)", "inlier": "nearer to (a higher cosine)"}[run.kind]
    raise ValueError(
        f"The filters kept no {run.kind}: sample {advice} the classes, or change filter.options."
    )


def imagined(job: Job) -> Source:
    """The imagined rows that stay, with those that people added."""
    c, run = job.config.regularize, job.run
    rows = kept_rows(run)[: c.max_outliers or None]
    least = job.config.latents.min_outlier_weight
    drawn = run.vectors
    vectors = drawn.z_MD[rows] if run.kind == "outlier" else None
    latent = LatentSet(labels=drawn.y_M, read=run.latents) if run.has_latents else None
    data = run.images.subset(rows) if latent is None else latent.subset(rows)
    if len(run.added):
        assert isinstance(data, Images)
        assert vectors is not None
        data = data.joined(run.added.images)
        vectors = torch.cat([vectors, run.added.vectors])
        # A person's pictures have the names of the vectors nearest to theirs.
        rows = torch.cat([rows, (run.added.vectors @ drawn.z_MD.T).argmax(1)])
    names = None if drawn.name_M is None else drawn.name_M.unique(return_inverse=True)[1][rows]
    return imagined_source(
        data, run.kind, c, job.inputs.train, vectors=vectors, names=names, min_weight=least
    )


def lost_detail(job: Job) -> Detail:
    """What the VAE loses of training images."""
    known = job.inputs.train.subset(load_tensors(job.layout.reconstructed("train"))["rows"])
    return Detail(known=known, reconstructed=job.run.reconstructed("train"))
