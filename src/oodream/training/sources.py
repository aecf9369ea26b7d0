"""Where the rows of training batches come from.

Sources are known images, their reconstructions, imagined inliers and outliers, and latents of known images
and outliers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..config import LatentsConfig, RegularizeConfig, TrainConfig
from ..data.images import Images
from .attribution import PERTURBATIONS
from .augment import gray_fraction
from .detail import Detail
from .known import TRANSFORMS, Transform
from .latent_adapters import NO_ADAPTER
from .policies import POLICIES, Policy

__all__ = [
    "ROLES",
    "Kind",
    "KnownPairs",
    "LatentSet",
    "Role",
    "Source",
    "as_trained",
    "check_sources",
    "imagined_source",
    "known_images",
    "known_in_place",
    "known_latents",
    "real_outliers",
    "source_of",
]

Kind = Literal["inlier", "outlier"]
Role = Literal["reconstructed", "known", "inlier", "outlier"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """N latents that are read by row, as `Images` are: `batch(rows)` returns float32 (B, F, h, w).

    `labels` is int64 (N,): the class of a known image's latent, or the class that an outlier lies around.
    """

    labels: Tensor
    read: Callable[[Tensor], Tensor] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (F, h, w) of one latent."""
        channels, height, width = self.read(torch.tensor([0])).shape[1:]
        return channels, height, width

    def batch(self, rows: Tensor) -> Tensor:
        """The latents at `rows`, float32 (B, F, h, w)."""
        return self.read(rows).float()

    def subset(self, rows: Tensor) -> LatentSet:
        """The latents at `rows` (int64), in that order."""
        return LatentSet(labels=self.labels[rows], read=lambda part: self.read(rows[part]))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images or latents that have one role in every batch.

    `known` images are the training set: each is shown once an epoch. `known` latents accompany the last ID
    rows of a batch. `reconstructed` images replace the first ID rows. `inlier` images stand beside the ID
    rows as images of their class. `outlier` images or latents are what is unknown; their labels are the
    classes that they lie around.

    ratio: rows for every ID row of a batch. weight: in the cross-entropy, where a known image weighs 1.
    grayscale_prob: chance that a row is shown without colour. outlier_aug_prob: chance that an outlier is
    shown in another pose, and chance that it is shown in another tone. soften: chance that an image is
    blurred or sharpened, with grain (see `augment.soften`). policy: augments every image (see `policies`).
    detail: lends every image detail of a known one.
    min_weight: below 1, an outlier's latent is mixed with a random known one, and weighs at least this much.
    vectors: unit vectors of the text
    space; a known source has one for each class, an outlier source one for each row, the vector it was
    imagined from. names: the number of the name that each outlier shows, where that is not its label.
    transform: what the rows' images become, each time anew. perturbation:
    makes outliers of images as they are shown, with the network that is trained; the rows' labels are then
    the images' classes.
    """

    role: Role
    data: Images | LatentSet
    ratio: float = 1.0
    weight: float = 1.0
    grayscale_prob: float = 0.0
    outlier_aug_prob: float = 0.0
    soften: float = 0.0
    policy: Policy | None = None
    detail: Detail | None = None
    min_weight: float = 1.0
    vectors: Tensor | None = None
    names: Tensor | None = None
    transform: Transform | None = None
    perturbation: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None

    @property
    def latent(self) -> bool:
        """Whether these are latents."""
        return isinstance(self.data, LatentSet)

    @property
    def named(self) -> Tensor:
        """The number of each row's name, int64: its label where it has no name of its own, and 0 without
        one.
        """
        return self.data.labels.clamp(min=0) if self.names is None else self.names


def as_trained(source: Source, config: TrainConfig) -> Source:
    """The source, softened and augmented as a training shows what it has, known or imagined."""
    return replace(source, soften=config.soften, policy=POLICIES.get(config.augmentation))


def source_of(sources: Sequence[Source], role: Role, *, latent: bool = False) -> Source | None:
    """The source in that role; None where there is none."""
    return next((source for source in sources if source.role == role and source.latent == latent), None)


def known_images(sources: Sequence[Source]) -> Images:
    """The training set itself; ValueError where no source is one."""
    known = source_of(sources, "known")
    if known is None:
        raise ValueError("Training needs known images: a source with the role 'known'.")
    assert isinstance(known.data, Images)
    return known.data


def check_sources(sources: Sequence[Source]) -> None:
    """Raises ValueError where no batch can be made of these sources; the message says why."""
    known_images(sources)
    kinds = [(source.role, source.latent) for source in sources]
    for role, latent in kinds:
        if role not in ROLES:
            raise ValueError(f"A source's role is {', '.join(ROLES)}, not {role!r}.")
        if kinds.count((role, latent)) > 1:
            raise ValueError(f"Two sources are {role} {'latents' if latent else 'images'}; there may be one.")
        if latent and role not in ("known", "outlier"):
            raise ValueError(
                f"The {role} source holds latents; only known images and outliers may be latents."
            )
    for source in sources:
        if len(source.data) == 0:
            raise ValueError(f"The {source.role} source is empty.")
    known, outliers = (source_of(sources, role, latent=True) for role in ("known", "outlier"))
    if (known is None) != (outliers is None):
        raise ValueError(
            "Latents of outliers and latents of known images are trained on together; one is missing."
        )
    if known is None or outliers is None:
        return
    if source_of(sources, "outlier") is not None:
        raise ValueError("Outliers are images or latents, not both.")
    shapes = [source.data.shape for source in (known, outliers) if isinstance(source.data, LatentSet)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"Outlier latents have the shape {shapes[1]}, those of known images {shapes[0]}.")


def known_latents(data: LatentSet, config: LatentsConfig) -> Source:
    """The latents of all known images, `data`, beside the outliers'; none where no adapter takes them."""
    return Source(role="known", data=data, ratio=0.0 if config.adapter == NO_ADAPTER else config.frac)


def imagined_source(
    data: Images | LatentSet,
    kind: Kind,
    config: RegularizeConfig,
    known: Images,
    *,
    vectors: Tensor | None = None,
    names: Tensor | None = None,
    min_weight: float = 1.0,
) -> Source:
    """The imagined inliers or outliers of a run beside the training set `known`.

    Where images of `known` are gray, imagined ones turn gray as often as `config` says. Inliers show known
    things: they are not varied, and have a weight of their own.
    """
    source = Source(
        role=kind,
        data=data,
        ratio=config.ratio,
        grayscale_prob=config.grayscale_prob * gray_fraction(known),
        vectors=vectors,
        names=names,
        min_weight=min_weight,
    )
    if kind == "inlier":
        return replace(source, weight=config.inlier_weight)
    return replace(source, outlier_aug_prob=config.outlier_aug_prob)


def known_in_place(
    data: Images | LatentSet,
    n: int,
    kind: Kind,
    config: RegularizeConfig,
    known: Images,
    *,
    min_weight: float = 1.0,
) -> Source:
    """The control: `n` known images, or their latents, in place of imagined inliers or outliers.

    `data` are all known images or latents, and the rows are spread over them. All are varied, or else
    transformed as `config.known_transform` says and shown as imagined ones would be. They come from no
    vector, so losses that contrast vectors refuse them. Latents can be varied alone: ValueError otherwise.
    """
    source = imagined_source(data.subset(spread(n, data)), kind, config, known, min_weight=min_weight)
    if config.known_transform == "varied":
        return replace(source, outlier_aug_prob=1.0)
    if source.latent:
        raise ValueError(f"Latents of known images can be varied, not {config.known_transform}.")
    name = config.known_transform
    perturbation = PERTURBATIONS.get(name)
    return replace(
        source,
        transform=TRANSFORMS.get(name),
        perturbation=partial(perturbation, step=config.known_step) if perturbation else None,
    )


def real_outliers(data: Images, config: RegularizeConfig, known: Images) -> Source:
    """The oracle: real images of other things in place of imagined outliers, all of `data`.

    Of more than `config.max_outliers` as many are used, spread over the set. They are shown as imagined ones
    would be: gray and varied as often. They come from no vector, so losses that contrast vectors refuse them.
    """
    n = min(len(data), config.max_outliers or len(data))
    return imagined_source(data.subset(spread(n, data)), "outlier", config, known)


def spread(n: int, data: Images | LatentSet) -> Tensor:
    """`n` rows of a set, evenly spread over it."""
    return torch.arange(n) * len(data) // max(1, n)


@dataclass(frozen=True, kw_only=True)
class KnownPairs:
    """Known images and recolored ones (uint8), with the latents of both, for latent adapters to learn from.

    Outliers have colours that known images may lack, so half of the pairs are recolored.
    """

    images: Images
    latents: LatentSet
    recolored_P3HW: Tensor
    recolored_latents_PFHW: Tensor

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n` random pairs: images (n, 3, H, W) uint8 and latents (n, F, h, w) float32; known ones first."""
        rows = torch.randint(len(self.images), (n // 2,), generator=g)
        others = torch.randint(len(self.recolored_P3HW), (n - n // 2,), generator=g)
        images = torch.cat([self.images.batch(rows), self.recolored_P3HW[others]])
        return images, torch.cat([self.latents.batch(rows), self.recolored_latents_PFHW[others].float()])
