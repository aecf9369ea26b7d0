"""Training batches: which rows of the sources are in each, in which order, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from ..config import Optimisation
from ..core.device import on_device
from ..core.distributed import Shard
from ..core.seeding import generator
from ..core.types import Latents
from ..data.images import Images
from .augment import Share, augment, soften, vary
from .policies import augmented
from .sources import ROLES, Source, known_images

__all__ = ["Batch", "as_shown", "epoch_batches"]

ALL, CPU = Shard(), torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images (uint8) and latents, known ones first and then outliers; labels and weights of all known rows.

    Of these known images come first, then known latents. `row_B` are the rows of known images in their
    sources. `near_O`, `name_O`, `vector_OD` and `latent_OFHW` are the outliers' classes, names, vectors and
    latents.

    Of several processes each has a part of the images and of `latents`, and all of the rest: `mine` are the
    places of its images, and then of its latents, among those of the whole batch. Without others it is None.
    """

    images_B3HW: Tensor
    y_B: Tensor
    weight_B: Tensor
    row_B: Tensor
    latents: Latents | None = None
    near_O: Tensor | None = None
    name_O: Tensor | None = None
    vector_OD: Tensor | None = None
    latent_OFHW: Tensor | None = None
    mine: Tensor | None = None

    def __len__(self) -> int:
        """The rows of the whole batch, images and latents."""
        return len(self.y_B) + (0 if self.near_O is None else len(self.near_O))

    @property
    def known_images(self) -> Tensor:
        """This process's known images."""
        n = len(self.row_B)
        return self.images_B3HW[: n if self.mine is None else int((self.mine < n).sum())]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        tensors = {name: on_device(x, device) for name, x in vars(self).items() if isinstance(x, Tensor)}
        latents = self.latents and replace(
            self.latents,
            latent_LFHW=on_device(self.latents.latent_LFHW, device),
            pair_K3HW=on_device(self.latents.pair_K3HW, device),
        )
        return Batch(**tensors, latents=latents)


@dataclass(frozen=True)
class Streams:
    """An epoch's random numbers, the same in every process."""

    rows: torch.Generator
    variations: torch.Generator


@dataclass(frozen=True)
class Draw:
    """Rows of a source: `rows` for the whole batch, of which this process has the `share`."""

    source: Source
    rows: Tensor
    share: Share

    @property
    def mine(self) -> Tensor:
        """The rows of this process."""
        return self.share(self.rows)


def epoch_batches(
    sources: Sequence[Source],
    config: Optimisation,
    seed: int,
    epoch: int,
    shard: Shard = ALL,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """The batches of an epoch on the device, a function of (seed, epoch) alone but for the device's rounding.

    Of several processes each has every `shard.count`-th row of every source, as the only one would have it.
    Reconstructed images come first, then known ones, inliers and outliers; then the latents of known images
    and of outliers. Random numbers are drawn on the CPU, and images are moved, varied and softened on the
    device.
    """
    streams = Streams(generator(seed, "epoch", epoch), generator(seed, "vary", epoch, 0))
    known_set = known_images(sources)
    order = torch.randperm(len(known_set), generator=streams.rows)
    _, steps = config.budget(len(order))
    for id_rows in order.split(config.batch)[:steps]:
        draws = draw(sources, id_rows, streams.rows, shard)
        pictures = [part for part in draws if not part.source.latent]
        images = torch.cat([show(part, streams, device) for part in pictures])
        images_B3HW = augment(images, config, streams.rows, joint_share(pictures))
        latents, latent_OFHW = draw_latents(draws, known_set, config, streams) or (None, None)
        known = [part for part in draws if part.source.role != "outlier"]
        outliers = next((part for part in draws if part.source.role == "outlier"), None)
        vectors = outliers.source.vectors if outliers else None
        batch = Batch(
            images_B3HW=images_B3HW,
            y_B=torch.cat([part.source.data.labels[part.rows] for part in known]),
            weight_B=torch.cat([torch.full((len(part.rows),), part.source.weight) for part in known]),
            row_B=torch.cat([part.rows for part in known if not part.source.latent]),
            latents=latents,
            near_O=outliers.source.data.labels[outliers.rows] if outliers else None,
            name_O=outliers.source.named[outliers.rows] if outliers else None,
            vector_OD=vectors[outliers.rows] if outliers and vectors is not None else None,
            latent_OFHW=latent_OFHW,
            mine=places(joint_share(draws)) if shard.count > 1 else None,
        )
        yield batch.to(device)


def draw(sources: Sequence[Source], id_rows: Tensor, g: torch.Generator, shard: Shard) -> list[Draw]:
    """The rows of every source for the ID rows of a batch: images first, then latents, by role."""
    n, replaced, draws = len(id_rows), 0, []
    for source in sorted(sources, key=lambda source: (source.latent, ROLES.index(source.role))):
        count = round(source.ratio * n)
        if source.role == "known":
            rows = id_rows[n - count :] if source.latent else id_rows[replaced:]
        else:
            rows = torch.randint(len(source.data), (count,), generator=g)
        if source.role == "reconstructed":
            replaced = count
        draws.append(Draw(source, rows, Share(total=len(rows), rows=shard.of(len(rows)))))
    return draws


def joint_share(draws: Sequence[Draw]) -> Share:
    """What a process has of several draws, one behind the other."""
    starts = accumulate((part.share.total for part in draws), initial=0)
    rows = [start + places(part.share) for start, part in zip(starts, draws, strict=False)]
    return Share(total=sum(part.share.total for part in draws), rows=torch.cat(rows))


def places(share: Share) -> Tensor:
    """The rows of a share as numbers, int64."""
    return share(torch.arange(share.total))


def show(part: Draw, streams: Streams, device: torch.device = CPU) -> Tensor:
    """This process's images, uint8 on the device, as their source says: transformed, with others' detail,
    augmented, gray, varied, softened.
    """
    source, share = part.source, part.share
    if source.transform is None:
        images = source.data.batch(part.mine)
    else:
        assert isinstance(source.data, Images)
        images = share(source.transform(source.data, part.rows, streams.variations))
    if source.detail is not None:
        images = source.detail(images, streams.rows, share)
    if source.policy is not None:
        images = augmented(source.policy, images, streams.variations, share)
    images = on_device(images, device)
    if source.grayscale_prob > 0 or source.outlier_aug_prob > 0:
        gray_B = torch.rand(len(part.rows), generator=streams.rows) < source.grayscale_prob
        variation = vary(gray_B, source.outlier_aug_prob, streams.variations)
        images = variation[share.rows](images)
    return soften(images, source.soften, streams.rows, share) if source.soften > 0 else images


@dataclass(frozen=True)
class _Shown:
    """Rows of a source as training shows them, each with random numbers of its own."""

    source: Source
    seed: int

    def __call__(self, index: Sequence[int]) -> Tensor:
        parts = []
        for row in index:
            rows, g = torch.tensor([row]), generator(self.seed, "as shown", self.source.role, row)
            parts.append(show(Draw(self.source, rows, Share(total=1)), Streams(g, g)))
        return torch.cat(parts)


def as_shown(source: Source, seed: int) -> Images:
    """The images of a source as training shows them (augmented, gray, varied, softened, with others' detail),
    each drawn by the seed and its row, and so always alike.
    """
    assert isinstance(source.data, Images)
    # Their pixels are not those of the files, by whose names a cache would know them.
    files = tuple(f"{file}, as shown by seed {seed}" for file in source.data.files)
    return replace(source.data, files=files, read=_Shown(source, seed))


def draw_latents(
    draws: Sequence[Draw], images: Images, config: Optimisation, streams: Streams
) -> tuple[Latents, Tensor] | None:
    """This process's latents, of known images and then of outliers, flipped at random where images are; and
    the outliers' of the whole batch. None where there are no latents.
    """
    parts = [part for part in draws if part.source.latent]
    if not parts:
        return None
    known, outliers = parts
    source, g, share = outliers.source, streams.rows, joint_share(parts)
    all_colored = torch.zeros(share.total, dtype=torch.bool)
    variation = vary(all_colored, source.outlier_aug_prob, streams.variations, known=len(known.rows))
    latents = torch.cat([known.source.data.batch(known.rows), mixed(outliers, known.source, g)])
    pairs = images.batch(known.mine)
    if config.flip:
        flipped = (torch.rand(share.total, generator=g) < 0.5)[:, None, None, None]
        latents = torch.where(flipped, latents.flip(3), latents)
        pairs = torch.where(known.share(flipped[: len(known.rows)]), pairs.flip(3), pairs)
    gray_L = torch.rand(share.total, generator=g) < source.grayscale_prob
    mine = Latents(
        latent_LFHW=share(latents), pair_K3HW=pairs, augment=replace(variation, gray_B=gray_L)[share.rows]
    )
    return mine, latents[len(known.rows) :]


def mixed(outliers: Draw, known: Source, g: torch.Generator) -> Tensor:
    """The outliers' latents, each mixed with that of a random known image where `min_weight` is below 1.

    So every outlier is many, on the way from what is known to what is not.
    """
    latents, least = outliers.source.data.batch(outliers.rows), outliers.source.min_weight
    if least >= 1:
        return latents
    weight = least + (1 - least) * torch.rand(len(latents), 1, 1, 1, generator=g)
    others = known.data.batch(torch.randint(len(known.data), (len(latents),), generator=g))
    return weight * latents + (1 - weight) * others
