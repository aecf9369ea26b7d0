"""Whether a detector's scores are each image's own, and whether it ranks known images above what is made of
them: a check that costs a pass over 200 images.

Known images are made unrecognizable, by shuffling their tiles, and by blending two of different classes. A
detector may have little to say of such pseudo-OOD images, but one to which they look better known than the
known images themselves would flag known images and let unknown ones pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.seeding import generator
from ..core.types import Detector, Output
from ..data.holdout import blended, shuffled
from ..data.images import Images, from_array
from ..functional.uncertainty import delong
from ..models.inference import Extractor
from .detectors import probes_of, scores_of

__all__ = ["own_scores_of", "pseudo_ood", "upside_down", "warn_of_upside_down"]

MOST = 100  # images of each kind
MOVED, ROUNDED = 0.01, 1e-4  # of scores' spread, and of a score: differences that rounding may make


def own_scores_of(detector: Detector, output: Output) -> Tensor:
    """The scores (N,) of N outputs, as `scores_of` gives them.

    Raises ValueError, which names the detector, where the first score is another one by itself: a threshold
    for such scores promises nothing of images that come in other company.
    """
    score_N = scores_of(detector, output)
    if len(score_N) > 1:
        probes = {key: values[:1] for key, values in output.probes.items()}
        one = Output(logits_BC=output.logits_BC[:1], z_BF=output.z_BF[:1], probes=probes)
        alone, first = float(scores_of(detector, one)[0]), float(score_N[0])
        if abs(alone - first) > MOVED * float(score_N.std()) + ROUNDED * abs(alone):
            raise ValueError(
                f"{type(detector).__name__} scores an image by those beside it: the first of "
                f"{len(score_N):,} has {first:.4g} among them and {alone:.4g} by itself. A score must be of "
                "its own output alone: what describes all images is learned in `_fit`."
            )
    return score_N


def pseudo_ood(known: Images) -> Images | None:
    """At most 100 of the known images, drawn at random, with their tiles shuffled; then as many blends of
    two.

    None where these are all of one class, for then there is nothing to blend them with.
    """
    rows = torch.randperm(len(known), generator=generator(0, "sanity", known.name))[:MOST]
    pixels, labels = known.batch(rows), known.labels[rows]
    if len(labels.unique()) < 2:
        return None
    parts = [make(pixels, labels, generator(0, "sanity", make.__name__)) for make in (shuffled, blended)]
    return from_array(f"{known.name}, pseudo-OOD", torch.cat(parts), labels.repeat(2), ()).as_ood()


def upside_down(
    extractor: Extractor, detectors: Mapping[str, Detector], known: Images, scores: Mapping[str, Tensor]
) -> dict[str, float]:
    """The fitted detectors that rank `pseudo_ood` images below the known ones, with their AUROC.

    `scores` are those of all `known` images by each detector that is looked at. An AUROC counts when it is
    below 0.5 beyond chance: when the upper end of DeLong's 95 % interval is. Nothing is said where all known
    images are of one class. Warns of a detector that cannot score these images.
    """
    used = {name: detectors[name] for name in scores}
    if not used or (nonsense := pseudo_ood(known)) is None:
        return {}
    output = extractor(nonsense, probes_of(list(used.values())))
    areas = {}
    for name, detector in used.items():
        try:
            areas[name] = delong(scores[name], scores_of(detector, output))
        except ValueError as error:
            warnings.warn(
                f"{name} cannot score known images made unrecognizable (tiles shuffled, or two blended): "
                f"{error}",
                stacklevel=3,
            )
    return {name: area.value for name, area in areas.items() if area.interval[1] < 0.5}


def warn_of_upside_down(found: Mapping[str, Mapping[str, float]]) -> None:
    """Warns once of all detectors that are `upside_down`: `found` has them with their AUROC, by the name of
    the classifier, or of what else has the detectors.
    """
    by_detector: dict[str, list[str]] = {}
    for of, aurocs in found.items():
        for name, auroc in aurocs.items():
            by_detector.setdefault(name, []).append(f"{auroc:.1%} in {of}")
    if by_detector:
        named = "; ".join(f"{name} (AUROC {', '.join(said)})" for name, said in by_detector.items())
        warnings.warn(
            f"What ranks upside down: {named}. Known images made unrecognizable (tiles shuffled, or two "
            "blended) look better known to it than the known images themselves. Choose other options or "
            "another detector; one that compares with training images needs enough of them in every class, "
            "and one of yours needs higher scores for what is unknown.",
            stacklevel=3,
        )
