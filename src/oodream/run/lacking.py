"""What a run does not have because of its options: said as such, and not as a file that is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError, listed, shown
from .layout import KINDS

if TYPE_CHECKING:
    from .artifacts import Run

__all__ = [
    "IMAGINING",
    "check_imagined",
    "check_imagines",
    "check_latents",
    "check_scores",
    "imagines_nothing",
    "lacks_outlier_images",
]

IMAGINING = ("align", "features", "vectors", "strips")
"""The stages that a run has for what it imagines alone, besides those of the images or latents themselves."""
IN_PLACE = {
    "known": "known images, altered in training, stand in the place of imagined ones (regularize.outliers)",
    "real": "real images stand in the place of imagined ones (regularize.outliers)",
    "": "this run's training shows nothing beside known images (regularize.loss, regularize.ratio)",
}


def imagines_nothing(run: Run) -> str:
    """Why a run samples and decodes nothing; empty for one that imagines."""
    return "" if run.beside == "imagined" else IN_PLACE[run.beside]


def lacks_outlier_images(run: Run, *, imagined: bool = False) -> str:
    """Why a run has no images of outliers, or no imagined ones; empty where it has some.

    Known images in the place of outliers are altered while a training shows them, and lie nowhere.
    """
    if run.beside == "real" and not imagined:
        return ""
    if lacking := imagines_nothing(run):
        return lacking
    if run.kind != "outlier":
        return f"this run imagines {run.kind}s"
    return "this run's outliers are latents (decode.output)" if run.has_latents else ""


def check_imagines(run: Run, file: Path | None = None) -> None:
    """Raises DataError for a run that samples and decodes nothing, which says why; where a `file` is asked
    for, only if an earlier command of the run has not left it.
    """
    if (lacking := imagines_nothing(run)) and not (file and file.exists()):
        raise DataError(f"{shown(run.folder.path)} imagines nothing: {lacking}.")


def check_imagined(run: Run, output: str) -> None:
    """Raises DataError where a run imagines nothing, or not `output`, "images" or "latents"."""
    check_imagines(run)
    if (made := run.config.decode.output) != output:
        raise DataError(
            f"{shown(run.folder.path)} has {made} and no {output}: its {run.kind}s are {made} "
            f"(decode.output). Read them with Run.{made}."
        )


def check_latents(run: Run) -> None:
    """Raises DataError for a run whose outliers are images, for which known images have no latents."""
    if not run.has_latents:
        raise DataError(
            f"{shown(run.folder.path)} has no latents of known images: nothing that its training shows "
            "beside them is latents (decode.output)."
        )


def check_scores(run: Run, kind: str, seed: int, detector: str) -> None:
    """Raises ValueError, which names the scores that there are, where a finished run has not measured a
    detector on a classifier.
    """
    if (stamp := run.stamp("scores")) is None:
        return
    arms = [(kind, seed) for kind in KINDS for seed in range(run.config.seeds)]
    measured = {
        arm: names
        for arm in arms
        if (names := [
            name for name in run.config.evaluate.detectors
            if run.layout.scores(*arm, name).name in stamp.get("files", {})
        ])
    }  # fmt: skip
    if detector in measured.get((kind, seed), ()):
        return
    said = f"{shown(run.folder.path)} has no scores of {detector!r} for the classifier {kind}-s{seed}."
    if here := measured.get((kind, seed)):
        raise ValueError(f"{said} For it there are: {listed(map(repr, here))}.")
    raise ValueError(f"{said} There are some for: {listed(f'{kind}-s{seed}' for kind, seed in measured)}.")
