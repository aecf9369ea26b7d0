"""Whether detectors rank known images below obvious nonsense: a check that costs one pass over a few images.

The nonsense is made of known images, by putting each one's pixels in a random order. A detector may have
little to say of it, but one that ranks it as better known than the known images themselves would call known
images unknown and let unknown ones pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.seeding import generator
from ..core.types import Detector
from ..data.images import Images, from_array
from ..functional.uncertainty import delong
from ..models.inference import Extractor
from .detectors import probes_of

__all__ = ["scrambled", "upside_down", "warn_if_upside_down"]

MOST = 200  # images that are scrambled


def scrambled(images: Images) -> Images:
    """At most 200 of the images, drawn at random, as OOD images: each with its pixels in a random order."""
    g = generator(0, "scrambled", images.name)
    rows = torch.randperm(len(images), generator=g)[:MOST]
    pixels = images.batch(rows).flatten(2)
    pixels = torch.stack([image[:, torch.randperm(image.shape[1], generator=g)] for image in pixels])
    square = pixels.unflatten(2, (images.size, images.size))
    return from_array(f"{images.name}, scrambled", square, images.labels[rows], ()).as_ood()


def upside_down(
    extractor: Extractor, detectors: Mapping[str, Detector], known: Images, scores: Mapping[str, Tensor]
) -> dict[str, float]:
    """The fitted detectors that rank `scrambled` images of `known` below the known ones, with their AUROC.

    `scores` are each detector's scores of all `known` images. An AUROC counts when it is below 0.5 beyond
    chance: when the upper end of DeLong's 95 % interval is.
    """
    if not detectors or len(known) < 2:
        return {}
    output = extractor(scrambled(known), probes_of(list(detectors.values())))
    areas = {name: delong(scores[name], detector.score(output)) for name, detector in detectors.items()}
    return {name: area.value for name, area in areas.items() if area.interval[1] < 0.5}


def warn_if_upside_down(
    extractor: Extractor, detectors: Mapping[str, Detector], known: Images, scores: Mapping[str, Tensor]
) -> None:
    """Warns of each detector that is `upside_down`."""
    for name, auroc in upside_down(extractor, detectors, known, scores).items():
        warnings.warn(
            f"{name} ranks upside down: known images whose pixels are in a random order look better known to "
            f"it than the known images themselves (AUROC {auroc:.1%}). Choose other options or another "
            "detector; one that compares with training images needs enough of them in every class.",
            stacklevel=3,
        )
