"""What the page shows, as plain values: summaries, pictures with their provenance, examples, counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..core.results import Row, ShiftRow
from ..core.types import Json

__all__ = [
    "Answer",
    "AuditNote",
    "Drawn",
    "FilterCount",
    "Imagined",
    "LatentMap",
    "Report",
    "SetSummary",
    "Strip",
]


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """An image set of `n` images that the run was measured on: `group` is "id", "near" or "far"."""

    name: str
    group: str
    n: int
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """One imagined image beside the training image it was sampled around, and what it takes to decode it
    again.

    Images are uint8 (3, H, W). `row` and `knn` are those of `SampledVectors`, `cosine` is to the class vector
    T(y), `pipeline` the decoder's hash, `words` the nearest ones that it has learnt. `dropped` says why a
    filter took the image out of training; it is empty where the image was kept.
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
class Drawn:
    """An outlier, uint8 (3, H, W), that a person has drawn and added to those that were sampled: `number` is
    that of the run's added pictures, `way` how its vector was found; the rest is as in `Imagined`.
    """

    name: str
    image_3HW: torch.Tensor
    number: int
    way: str
    seed: int
    cosine: float
    prompt: str
    pipeline: str
    words: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Pictures along an arc through the latent space, uint8 (N, 3, H, W), with a short label for each."""

    caption: str
    images_N3HW: torch.Tensor
    labels: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the deployed classifier answers to one test image, uint8 (3, H, W).

    `truth` is what the image shows, and `known` whether that is one of the classes. `answer` is a class name,
    or "unknown" where `score` (higher for OOD) lies above `threshold`.
    """

    image_3HW: torch.Tensor
    truth: str
    known: bool
    answer: str
    score: float
    threshold: float

    @property
    def correct(self) -> bool:
        """Whether a known image got its class, or an unknown one was flagged."""
        accepted = self.score <= self.threshold
        return accepted and self.answer == self.truth if self.known else not accepted


@dataclass(frozen=True, kw_only=True)
class LatentMap:
    """Two coordinates of N features and M sampled vectors, with labels (positions in `Report.classes`).

    `dropped_M` (bool) marks vectors whose image a filter took out. `method` says in a few words how the
    coordinates were made. `own_knn` and `vector_knn` are distances of some features and of some vectors to
    the k-th nearest other feature of their class.
    """

    features_N2: np.ndarray
    y_N: np.ndarray
    outliers_M2: np.ndarray
    y_M: np.ndarray
    dropped_M: np.ndarray
    method: str
    own_knn: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    vector_knn: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True, kw_only=True)
class FilterCount:
    """How many images of a class were imagined, and how many were kept for training.

    Of the others people `rejected` some, and filters dropped the rest; of those kept people `rescued` some
    from the filters.
    """

    imagined: int
    kept: int
    rejected: int = 0
    rescued: int = 0


@dataclass(frozen=True, kw_only=True)
class AuditNote:
    """A finding of the audit: `severity` is problem, warning or fine.

    `pairs` are two images, uint8 (3, H, W), that should not both be there, and a caption. `aurocs` in [0, 1]
    say by which statistics, and by all "together", the last of `sets` is separated from the first whatever
    its images show.
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

    - `classifiers` maps names to one line each. The first is the baseline, the last the one the report is
      about.
    - `rows` may hold several classifiers, detectors and seeds. Means have `dataset` "mean" and the `group`
      "near", "far" or "all". Rows of group "control" are listed separately, without a best.
    - `shifts` are accuracies on shifted sets of known classes, and `shift_answers` examples of the deployed
      classifier's answers there, by set.
    - `detector` is the one of the headline, the main table and `scores`. `scores` (N,), higher for OOD, are
      by classifier and set, those of the ID test set under "id".
    - `kind` says whether an "outlier" or an "inlier" was imagined. With inliers the headline is about
      accuracy under shift, as far as measured. `latents` says that training saw latents and no images.
    - `added` are outliers that a person has drawn, all of them.
    - `gallery`, `class_samples` (images uint8 (K, 3, H, W) decoded from the class prompts) and `strips` are
      by class and may leave classes out; the page says how many are shown.
    - `answers` are examples of the deployed classifier's, `answering` is the detector of their scores, and
      `guarantee` that of its threshold.
    - `reconstructed_id` is, by classifier, the AUROC in [0, 1] of reconstructed ID images against ID images.
    - `dropped` says how many imagined images went for which reason, and `recognized` how many of all the
      baseline takes for their class, where it was asked.
    - `audit` are the audit's findings, worst first, and `remarks` sentences that stand beside the headline:
      what makes its numbers doubtful.
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
    sets: Sequence[SetSummary] = ()
    rows: Sequence[Row] = ()
    shifts: Sequence[ShiftRow] = ()
    shift_answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    kind: str = "outlier"
    latents: bool = False
    detector: str = "energy"
    scores: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    latent_map: LatentMap | None = None
    gallery: Sequence[Imagined] = ()
    added: Sequence[Drawn] = ()
    class_samples: Mapping[str, torch.Tensor] = field(default_factory=dict)
    strips: Mapping[str, Sequence[Strip]] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    answering: str = "energy"
    guarantee: str = ""
    reconstructed_id: Mapping[str, float] = field(default_factory=dict)
    filtered: Mapping[str, FilterCount] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    recognized: int | None = None
    audit: Sequence[AuditNote] = ()
    remarks: Sequence[str] = ()
