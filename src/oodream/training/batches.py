"""What training batches are made of: known images, and imagined ones or their latents beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import Optimisation
from ..core.distributed import Shard
from ..core.seeding import generator
from ..core.types import Latents
from ..data.images import Images
from .augment import augment, vary

ALL = Shard()


@dataclass(frozen=True, kw_only=True)
class LatentBank:
    """Latents in place of outlier images: `known` gives those of rows of the ID images, `ood_MFHW` are the outliers'.

    A share `share` of every ID batch comes along as latents. An outlier is mixed with the latent of a random known image, of which
    at most the share 1 - `least` is taken: so every outlier is many, on the way from what is known to what is not. `coloured` are
    some known images in random colours, uint8 (P, 3, H, W), and their latents (P, F, h, w), for a path to learn from.
    """

    known: Callable[[Tensor], Tensor]
    coloured: tuple[Tensor, Tensor]
    ood_MFHW: Tensor
    share: float
    least: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DrawnFrom:
    """The unit vectors (M, D) that outliers were drawn from, the classes these lie around, and the classes' vectors."""

    vector_MD: Tensor
    near_M: Tensor
    tokens_CD: Tensor


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a batch is made of: ID images, a share of which come from `reconstructed`, and imagined images beside them.

    For every ID image there are `ratio` imagined ones: `inliers`, which are of their class and weigh `weight`, or outliers, as
    images in `outliers` or as latents in `bank`. A share `grey` of imagined images is turned grey, and a share `varied` of outliers
    is shown in other poses, another in other tones.
    """

    id: Images
    reconstructed: Images | None = None
    share: float = 0.0
    inliers: Images | None = None
    weight: float = 1.0
    outliers: Images | None = None
    bank: LatentBank | None = None
    drawn_from: DrawnFrom | None = None
    ratio: float = 1.0
    grey: float = 0.0
    varied: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Known images, then outliers: `images_B3HW` uint8; labels and weights of the known ones, those that come as latents included.

    `row_B` are the known images' rows in `Mixture.id`; `near_O` and `vector_OD` belong to the outliers.
    """

    images_B3HW: Tensor
    y_B: Tensor
    weight_B: Tensor
    row_B: Tensor
    latents: Latents | None = None
    near_O: Tensor | None = None
    vector_OD: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch there."""
        told = self.latents
        latents = told and replace(
            told, latent_LFHW=told.latent_LFHW.to(device), pair_K3HW=told.pair_K3HW.to(device)
        )
        return Batch(
            **{name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)}, latents=latents
        )


def epoch_batches(
    data: Mixture, config: Optimisation, seed: int, epoch: int, part: Shard = ALL
) -> Iterator[Batch]:
    """The batches of an epoch, a function of (seed, epoch) alone; of each, every `part.count`-th row of every kind.

    Reconstructed rows come first, then ID rows, then inliers, then outliers.
    """
    g = generator(seed, "epoch", epoch)
    moves = generator(seed, "augment", epoch, part.index) if part.count > 1 else g
    order = torch.randperm(len(data.id), generator=g)
    looks = generator(seed, "vary", epoch, 0)  # the same in every process
    mine = slice(part.index, None, part.count)
    for start in range(0, len(order) - config.batch + 1 if len(order) >= config.batch else 1, config.batch):
        rows = order[start : start + config.batch]
        count = round(data.ratio * len(rows))
        pieces: list[tuple[Images, Tensor]] = [(data.id, rows)]
        if data.reconstructed is not None and (n := round(data.share * len(rows))):
            pieces = [
                (data.reconstructed, torch.randint(len(data.reconstructed), (n,), generator=g)),
                (data.id, rows[n:]),
            ]
        imagined = data.inliers if data.inliers is not None else data.outliers
        picked = None
        if imagined is not None or data.bank is not None:
            among = len(imagined) if imagined is not None else len(data.bank.ood_MFHW)  # type: ignore[union-attr]
            picked = torch.randint(among, (count,), generator=g)
        if imagined is not None and picked is not None:
            pieces.append((imagined, picked))
        parts = [images.batch(of[mine]) for images, of in pieces]
        if imagined is not None and (data.grey > 0 or data.varied > 0):
            grey_B = torch.rand(count, generator=g) < data.grey
            parts[-1] = vary(grey_B, data.varied, looks)[mine](parts[-1])
        known = pieces[:-1] if data.outliers is not None else pieces
        y_B, row_B = (
            torch.cat([images.labels[of[mine]] for images, of in known]),
            torch.cat([of[mine] for _, of in known]),
        )
        weight_B = torch.ones(len(y_B))
        if data.inliers is not None:
            weight_B[-len(parts[-1]) :] = data.weight
        images_B3HW = augment(torch.cat(parts), config, moves)
        latents = None
        if data.bank is not None and picked is not None:
            latents, pairs = latent_batch(data, rows, picked, config, mine, moves, looks)
            y_B, weight_B = (
                torch.cat([y_B, data.id.labels[pairs]]),
                torch.cat([weight_B, torch.ones(len(pairs))]),
            )
        near = vector = None
        if data.drawn_from is not None and picked is not None:
            near, vector = data.drawn_from.near_M[picked[mine]], data.drawn_from.vector_MD[picked[mine]]
        yield Batch(
            images_B3HW=images_B3HW,
            y_B=y_B,
            weight_B=weight_B,
            row_B=row_B,
            latents=latents,
            near_O=near,
            vector_OD=vector,
        )


def latent_batch(
    data: Mixture,
    rows: Tensor,
    picked: Tensor,
    config: Optimisation,
    mine: slice,
    g: torch.Generator,
    looks: torch.Generator,
) -> tuple[Latents, Tensor]:
    """The latents of a share of the ID rows, which are told, too, and of outliers `picked`; of both kinds those that are `mine`.

    All are flipped at random where images are. How pictures of outliers are varied is drawn by `looks`.
    """
    assert data.bank is not None
    pairs = rows[len(rows) - round(data.bank.share * len(rows)) :]
    no_grey = torch.zeros(
        len(pairs) + len(picked), dtype=torch.bool
    )  # which turn grey is drawn below, for mine alone
    pair_rows, ood_rows = torch.arange(len(no_grey)).tensor_split([len(pairs)])
    shown = vary(no_grey, data.varied, looks, known=len(pairs))[torch.cat([pair_rows[mine], ood_rows[mine]])]
    pairs, picked = pairs[mine], picked[mine]
    ood = data.bank.ood_MFHW[picked].float()
    if data.bank.least < 1:
        share = data.bank.least + (1 - data.bank.least) * torch.rand(len(ood), 1, 1, 1, generator=g)
        ood = (
            share * ood
            + (1 - share) * data.bank.known(torch.randint(len(data.id), (len(ood),), generator=g)).float()
        )
    latents = torch.cat([data.bank.known(pairs).float(), ood])
    images = data.id.batch(pairs)
    if config.flip:
        flipped = (torch.rand(len(latents), generator=g) < 0.5)[:, None, None, None]
        latents = torch.where(flipped, latents.flip(3), latents)
        images = torch.where(flipped[: len(images)], images.flip(3), images)
    grey = torch.rand(len(latents), generator=g) < data.grey
    return Latents(latent_LFHW=latents, pair_K3HW=images, shown=replace(shown, grey_B=grey)), pairs
