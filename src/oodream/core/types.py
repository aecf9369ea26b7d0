"""The nouns every part shares, and the protocols of what can be plugged in.

Shape suffixes in names: N samples, B batch, C classes, M synthetic rows, D embedding width, F feature width,
H and W pixels. Signs, stated once: a score is higher for OOD; the label of an OOD image is -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = [
    "OOD", "ClassBook", "Decoder", "Detector", "Features", "Filter", "ForwardPass", "Generated", "Head",
    "Json", "LatentAdapter", "LatentPairs", "Latents", "Loss", "Output", "Probe", "SampledVectors",
    "Sampler", "Sizes", "Step", "Terms",
]  # fmt: skip

OOD = -1


@dataclass(frozen=True, kw_only=True)
class ClassBook:
    """The one list of classes: names, prompts and the class vectors T(y) of a text encoder's input token
    table.

    `prompts` hold the class name once; `tokens_CD` is float32; `space` names the encoder and table the
    vectors belong to.
    """

    names: tuple[str, ...]
    prompts: tuple[str, ...]
    tokens_CD: Tensor
    space: str


@dataclass(frozen=True, kw_only=True)
class Features:
    """Unit-norm embeddings `z_ND` (float32) of N ID images, their labels and rows, and the encoder's hash."""

    z_ND: Tensor
    y_N: Tensor
    index_N: Tensor
    encoder: str

    def __post_init__(self) -> None:
        if not torch.isfinite(self.z_ND).all():
            raise ValueError("Features contain NaN or infinity.")
        if self.z_ND.numel() and (self.z_ND.norm(dim=1) - 1).abs().max() > 1e-3:
            raise ValueError("Features must have unit norm.")


@dataclass(frozen=True, kw_only=True)
class SampledVectors:
    """M sampled unit-norm vectors; row m alone is enough to draw image m again.

    `anchor_M` is the row of `Features` a vector was sampled around, `knn_M` its distance to the class's k-th
    nearest feature, `seed_M` the seed of its image, `kind` "outlier" or "inlier", `space` that of the class
    vectors. `name_M` says which of the sampler's words a vector was drawn by; None where there are none.
    """

    z_MD: Tensor
    y_M: Tensor
    anchor_M: Tensor
    knn_M: Tensor
    seed_M: Tensor
    kind: str
    space: str
    name_M: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y_M)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One decoded batch: images, uint8, or latents, float16, with class and row of `SampledVectors`."""

    y_B: Tensor
    row_B: Tensor
    images_B3HW: Tensor | None = None
    latents_BFHW: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What every classifier returns: `logits_BC` and the penultimate features `z_BF`, of width 0 where a
    network shows none.

    `probes` holds, by a probe's key, what detectors had computed beside them (B, …).
    """

    logits_BC: Tensor
    z_BF: Tensor
    probes: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logits_BC)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A classifier's last layer, logits = z weight' + bias, and the classes' weights in the energy, if it was
    trained with some.
    """

    weight_CF: Tensor
    bias_C: Tensor
    energy_C: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """One batch on its way through a network: the images as floats in [0, 255], the network, and its output.

    `images_B3HW` requires gradients, and `output` has a graph, if a probe wants the "gradient". `map_BFHW` is
    what was averaged to z, if one wants the "map".
    """

    model: nn.Module
    images_B3HW: Tensor
    output: Output
    map_BFHW: Tensor | None = None


class Probe(Protocol):
    """What a detector needs of images beside the outputs; computed while these are. Its `key` tells what and
    with which options.

    `wants` is "gradient", "map", or "": the outputs alone. `for_fit` says whether `Detector.fit` reads it,
    too.
    """

    @property
    def key(self) -> str: ...

    @property
    def wants(self) -> str: ...

    @property
    def for_fit(self) -> bool: ...

    def __call__(self, forward: ForwardPass) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one training step shows a loss: everything in it comes from one forward pass of the classifier.

    `id` are the outputs for B known images, real or imagined, or their latents, with labels `y_B` and weights
    `weight_B` (a real image weighs 1). `ood` are those for O outliers, images or latents (then also in
    `latent_OFHW`), with the unit vectors `vector_OD` they were drawn from, the classes `near_O` they lie
    around, and the numbers `name_O` of what they show, or else of these classes. `tokens_CD` are the classes'
    vectors, and `teacher` the outputs of a teacher for the first rows of `id`. `head` is the classifier's
    last layer, the parameters themselves, so that gradients reach them. What a training does not have is
    None. `progress` is the share of the training's steps that are done.
    """

    id: Output
    y_B: Tensor
    weight_B: Tensor
    ood: Output | None = None
    vector_OD: Tensor | None = None
    near_O: Tensor | None = None
    name_O: Tensor | None = None
    latent_OFHW: Tensor | None = None
    tokens_CD: Tensor | None = None
    teacher: Output | None = None
    head: Head | None = None
    progress: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Latents:
    """The latents of a step (L, F, h, w): first those of K known images, which are given as images, too; then
    outliers.

    `augment` is applied to decoded previews, uint8 (L, 3, H, W), by adapters that decode.
    """

    latent_LFHW: Tensor
    pair_K3HW: Tensor
    augment: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a loss's own networks are made for: widths of features, text vectors and a teacher's features,
    shape of the latents.

    `names` are the names that outliers have. Of what a training does not have the size is 0 or None.
    """

    features: int
    classes: int = 0
    text: int = 0
    teacher: int = 0
    names: int = 0
    latent: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What every loss returns: the scalar to minimise, and its parts by name for the log."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Sampler(Protocol):
    """Draws `per_class` vectors of every class around its features. Row m is of class m mod C.

    `kind` is "outlier" or "inlier". `check` raises ValueError for labels that it cannot work with, before any
    work.
    """

    kind: str

    def check(self, y_N: Tensor, names: Sequence[str]) -> None: ...

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors: ...


class Decoder(Protocol):
    """A generator between the latent space of vectors, its own latents, and images.

    Row b of every result depends on row b of the arguments alone. `fingerprint` is a hash of weights and
    options. `tile` images are drawn together; 0 stands for `largest_tile`. Images are uint8 (B, 3, H, W),
    latents float16 (B, F, h, w), both on the CPU. One that leads away from the class has `kind` "outlier".
    """

    book: ClassBook
    tile: int

    @property
    def fingerprint(self) -> str: ...

    def largest_tile(self) -> int:
        """How many images the memory holds together, a power of two."""
        ...

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Images of vectors."""
        ...

    def latents(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Latents of vectors."""
        ...

    def plain(self, prompts: Sequence[str], seed_B: Tensor) -> Tensor:
        """Images of prompts, as they are."""
        ...

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """Latents of images."""
        ...

    def pictures(self, latents_BFHW: Tensor) -> Tensor:
        """Images of latents."""
        ...

    def reconstruct(self, images_B3HW: Tensor) -> Tensor:
        """Images that have been latents on the way."""
        ...

    def neighbours(self, z_MD: Tensor) -> list[list[str]]:
        """The words whose vectors are nearest to each vector, nearest first."""
        ...


class Loss(nn.Module):
    """A training loss that owns its auxiliary networks.

    `outliers`, `teacher` and `needs_head` say whether it cannot do without; `build` makes its networks once
    their sizes are known.
    """

    outliers = teacher = needs_head = False

    def build(self, sizes: Sizes) -> None:
        """Nothing to build, unless a loss has networks."""

    def finish(self) -> None:
        """Lets go of what training alone needs, before a classifier keeps the loss; nothing by default."""

    def forward(self, step: Step) -> Terms:
        raise TypeError(f"{type(self).__name__} does not define forward(step).")


class LatentAdapter(nn.Module):
    """How latents reach a classifier. Made with `model`, the latents' shape `latent`, the image size `size`
    and its own options.

    `forward` returns the outputs for the images and then for the latents, and the adapter's own loss (how far
    known latents are from their images), or None. An adapter that is `pretrained` learns by `fit` before any
    classifier does, and stays as it is.
    """

    pretrained = False

    def fit(self, pairs: LatentPairs, seed: int, device: torch.device) -> None:
        """Nothing to learn, unless an adapter is pretrained."""

    def forward(
        self, model: nn.Module, images_B3HW: Tensor, latents: Latents
    ) -> tuple[Output, Tensor | None]:
        raise TypeError(f"{type(self).__name__} does not define forward(model, images_B3HW, latents).")


class LatentPairs(Protocol):
    """Images with their latents, for adapters to learn from; `draw(n, g)` gives n pairs: images (n, 3, H, W)
    uint8, latents (n, F, h, w).
    """

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]: ...


class Detector(Protocol):
    """Scores outputs, higher for OOD, after `fit` has seen outputs of ID training images, their labels and
    the network's head.

    It is a dataclass: its fields are its options, and those that `fit` fills (init=False) are tensors. A
    detector that needs more of an image than its outputs has a property `probes`; it is asked again after
    `fit`, for what scores need may depend on what was learned. Where a class attribute `uses_outliers` is
    true, the detector learns from outliers, too: `fit` gets their outputs behind those of the ID images, with
    the label -1. Without the attribute no label is -1.
    """

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Detector: ...

    def score(self, output: Output) -> Tensor: ...


class Filter(Protocol):
    """Decides which imagined images stay: a bool tensor (B,). `reason` says why the others go.

    `images_B3HW` are uint8, `y_B` the classes they were imagined for, and `baseline` is the run's baseline
    classifier. A filter that `compares` is given all images of a class in one call, and its answer for one
    may depend on those before it; else on it alone. One for images of one kind has that `kind`.
    """

    reason: str

    def __call__(self, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor: ...


Json = dict[str, Any]
