"""The choice of detectors' options for a benchmark: on the protocol's validation sets, never on what is
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..core.options import Option
from ..core.types import Detector
from ..data.images import Images, ImageSet
from ..detection.fit import Lesson, none_usable
from ..detection.tune import Tried, tune
from ..models.inference import Extractor

__all__ = ["Say", "of_group", "tune_detectors"]

Say = Callable[[str], None]


def of_group(sets: Sequence[ImageSet], group: str) -> Images:
    """The images of the first set of a group."""
    return next(s.images for s in sets if s.group == group)


def tune_detectors(
    extractor: Extractor,
    options: Mapping[str, Mapping[str, Option]],
    sets: Sequence[ImageSet],
    folder: Images | None,
    say: Say,
    outliers: Images | Lesson | None = None,
) -> tuple[dict[str, Detector], dict[str, str], list[str]]:
    """The detectors with the options that separate validation images best; the detectors that cannot be used,
    and why; and notes on what was chosen.

    `options` holds for each detector those that stay as they are, `outliers` what some learn from. The known
    images are those of the group "val", the unknown ones those of `folder`, or of the group "val-ood" where
    there is no folder.
    """
    known, fit = of_group(sets, "val"), of_group(sets, "train")
    unknown = [folder] if folder is not None else [s.images for s in sets if s.group == "val-ood"]
    count = sum(map(len, unknown))
    notes = [f"Options were chosen on {len(known)} known and {count} unknown images of no test set."]
    detectors: dict[str, Detector] = {}
    skipped: dict[str, str] = {}
    for name, fixed in options.items():
        try:
            detectors[name], tried = tune(
                extractor, name, fixed, fit=fit, known=known, unknown=unknown, outliers=outliers
            )
        except ValueError as error:
            skipped[name] = str(error)
            continue
        line = _in_words(tried)
        say(f"  {name:20} {line}, the best of {tried.candidates} candidates")
        if tried.auroc > tried.default:
            notes.append(f"{name}: {line}, on validation images.")
    if not detectors:
        raise none_usable(skipped)
    return detectors, skipped, notes


def _in_words(tried: Tried) -> str:
    """The options that were chosen and what they gain."""
    options = ", ".join(f"{key} {value}" for key, value in tried.options.items()) or "default options"
    return f"{options} (AUROC {100 * tried.auroc:.1f} %, by default {100 * tried.default:.1f} %)"
