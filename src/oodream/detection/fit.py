"""How detectors are fitted: all to known images, and those that learn from outliers to these as well, each
kind shown as the other is where there is a `Lesson`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.faults import blamed
from ..core.types import OOD, Detector, Head, Output
from ..data.images import Images
from ..models.inference import Extractor, joined
from .detectors import NoOutliers, probes_of

__all__ = ["Lesson", "Training", "none_usable", "training_outputs", "uses_outliers"]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What detectors that use outliers learn from, where known images are shown as outliers are.

    `outliers` are of no test set; sets of `known` images with labels take the place of the ID training
    images. `remark` says in words what the outliers are and how they are shown.

    Imagined outliers have the look of their decoder, and a detector may learn that alone. Where both kinds
    are shown alike, it says less.
    """

    outliers: Images
    known: Sequence[Images]
    remark: str = ""


@dataclass(frozen=True)
class Training:
    """What detectors are fitted to: the outputs for known images with labels (N,), the network's head, and
    the outputs for `outliers`, where there are some. `shown`, outputs with labels, takes the known images'
    place beside outliers.
    """

    known: Output
    y_N: Tensor
    head: Head | None = None
    outliers: Output | None = None
    shown: tuple[Output, Tensor] | None = None

    def fit(self, detector: Detector) -> Detector:
        """The detector, fitted to what is `given` to it.

        Raises what `given` raises, and ValueError, which names the detector, for whatever `Detector.fit`
        raises (see `faults.blamed`).
        """
        given = self.given(detector)
        with blamed(type(detector).__name__, detector):
            return detector.fit(*given)

    def given(self, detector: Detector) -> tuple[Output, Tensor, Head | None]:
        """What a detector's `fit` is called with: for one that uses outliers the known images and the
        outliers, with the label -1, for any other the known images alone.

        Raises NoOutliers for one that uses outliers where there are none.
        """
        if not uses_outliers(detector):
            return self.known, self.y_N, self.head
        if self.outliers is None:
            raise NoOutliers(detector, "give `outliers`, images of what is unknown and in no test set")
        known, y_N = self.shown or (self.known, self.y_N)
        y_M = torch.full((len(self.outliers),), OOD)
        return joined([known, self.outliers]), torch.cat([y_N, y_M]), self.head


def training_outputs(
    extractor: Extractor, detectors: Sequence[Detector], fit: Images, outliers: Images | Lesson | None = None
) -> Training:
    """A network's outputs for the ID training images `fit` and, where one of the detectors uses them, for the
    `outliers`, whatever their labels say, and for the known images of a lesson.
    """
    probes = [probe for probe in probes_of(detectors) if probe.for_fit]
    known = extractor(fit, probes)
    if outliers is None or not any(map(uses_outliers, detectors)):
        return Training(known, fit.labels, extractor.head)
    if isinstance(outliers, Images):
        return Training(known, fit.labels, extractor.head, extractor(outliers, probes))
    shown = joined([extractor(images, probes) for images in outliers.known])
    y_N = torch.cat([images.labels for images in outliers.known])
    return Training(known, fit.labels, extractor.head, extractor(outliers.outliers, probes), (shown, y_N))


def uses_outliers(detector: Any) -> bool:
    """Whether a detector, or a class of detectors, learns from outliers."""
    return bool(getattr(detector, "uses_outliers", False))


def none_usable(skipped: Mapping[str, str]) -> ValueError:
    """What is raised where no detector is left, with the reason of each."""
    if not skipped:
        return ValueError("At least one detector is needed.")
    reasons = (f"  {name}: {reason}" for name, reason in skipped.items())
    return ValueError("\n".join(["None of the detectors can be used:", *reasons]))
