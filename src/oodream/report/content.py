"""report.content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..core.results import Row, ShiftRow
from ..core.types import Json


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """An image set the run was measured on: `group` is "id", "near" or "far", `n` its images, `description` one line."""

    name: str
    group: str
    n: int
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """One generated outlier beside the training image it was sampled around, with what is needed to draw it again.

    Images are uint8 (3, H, W). `row` and `knn` are those of `SampledVectors`, `cosine` is to the class vector T(y), `pipeline` the
    decoder's hash, `words` the vocabulary's nearest. `dropped` says why a filter took it out of training; empty when it was kept.
    """

    name: str
    image_3HW: torch.Tensor
    anchor_3HW: torch.Tensor
    row: int
    seed: int
    knn: float
    cosine: float
    prompt: str
    pipeline: str
    anchor_file: str
    words: Sequence[str] = ()
    dropped: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Pictures along a path through the latent space, uint8 (N, 3, H, W), with a short label for each."""

    about: str
    images_N3HW: torch.Tensor
    labels: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the final classifier says to one test image, uint8 (3, H, W).

    `truth` is what the image shows, `known` whether that is one of the classes, `verdict` the classifier's words: a class name,
    or "unknown" when `score` (higher for OOD) is above `threshold`.
    """

    image_3HW: torch.Tensor
    truth: str
    known: bool
    verdict: str
    score: float
    threshold: float

    @property
    def right(self) -> bool:
        """Whether a known image was given its class, or an unknown one refused."""
        accepted = self.score <= self.threshold
        return accepted and self.verdict == self.truth if self.known else not accepted


@dataclass(frozen=True, kw_only=True)
class LatentMap:
    """Two coordinates of N features and M outliers, with labels (positions in `Report.classes`).

    `dropped_M` (bool) marks outliers a filter took out; `method` says in a few words how the coordinates were made.
    """

    features_N2: np.ndarray
    y_N: np.ndarray
    outliers_M2: np.ndarray
    y_M: np.ndarray
    dropped_M: np.ndarray
    method: str


@dataclass(frozen=True, kw_only=True)
class FilterCount:
    """How many outliers of a class were drawn, and how many the filters kept for training."""

    drawn: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What an audit of the image sets says: `severity` is problem, warning or fine.

    `pairs` are two pictures, uint8 (3, H, W), that should not be two, and what to call them; `aurocs` in [0, 1] say by which
    statistics, and by all "together", the last of `sets` is told from the first whatever its pictures show.
    """

    kind: str
    sets: Sequence[str]
    severity: str
    message: str
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor, str]] = ()
    aurocs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the page shows. What is empty leaves its section out.

    `classifiers` maps names to one line each, in order: the first is the baseline, the last the one the report is about.
    `rows` may hold several classifiers, detectors and seeds; means have `dataset` "mean" and `group` "near", "far" or "all".
    Rows of group "control" are listed apart, without a best.
    `detector` is the one the headline, the main table and `scores` are about; `scores` (N,), higher for OOD, are kept by
    classifier and set, the ID test set under "id".
    `class_samples` are images uint8 (K, 3, H, W) decoded from the plain class prompt, `strips` paths by class.
    `reconstructed_id` is, by classifier, the AUROC in [0, 1] of decoded-again ID images against ID images. `shifts` are accuracies
    on known classes that look otherwise. `kind` says whether "outlier"s or "inlier"s were imagined: with inliers the headline is
    about accuracy. `latents` says that they were trained on as latents. `audit` is what an audit of the sets found, worst first.
    `answers` are examples of what is deployed, and `promise` says what its limit keeps. The caller decides how many pictures there
    are.
    """

    title: str
    preset: str
    created: str
    command: str
    classes: Sequence[str]
    classifiers: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    sets: Sequence[ImageSet] = ()
    rows: Sequence[Row] = ()
    shifts: Sequence[ShiftRow] = ()
    kind: str = "outlier"
    latents: bool = False
    detector: str = "energy"
    scores: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    latent_map: LatentMap | None = None
    gallery: Sequence[Imagined] = ()
    class_samples: Mapping[str, torch.Tensor] = field(default_factory=dict)
    strips: Mapping[str, Sequence[Strip]] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    promise: str = ""
    reconstructed_id: Mapping[str, float] = field(default_factory=dict)
    filtered: Mapping[str, FilterCount] = field(default_factory=dict)
    audit: Sequence[Checked] = ()
