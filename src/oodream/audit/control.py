"""The control of reconstructed images: whether classifiers react to the decoder's traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from ..core.results import Row
from .finding import SEVERITIES, Finding, percent

__all__ = ["CONTROL_FAILS", "CONTROL_WARNS", "reconstruction_control"]

CONTROL_WARNS, CONTROL_FAILS = 0.05, 0.1  # distance of the AUROC from 50 %


def reconstruction_control(rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether classifiers score ID images that went through the decoder's autoencoder as ID images.

    Of each classifier the first detector's AUROC and its interval are judged; over seeds the means of both.
    """
    for classifier in dict.fromkeys(row.classifier for row in rows):
        of_classifier = [row for row in rows if row.classifier == classifier]
        seeds = [row for row in of_classifier if row.detector == of_classifier[0].detector]
        auroc = fmean(row.auroc for row in seeds)
        low, high = (
            fmean(row.intervals.get("auroc", (row.auroc, row.auroc))[end] for row in seeds) for end in (0, 1)
        )
        distance = 0.0 if low <= 0.5 <= high else abs(auroc - 0.5)
        severity = SEVERITIES[2 - (distance >= CONTROL_WARNS) - (distance >= CONTROL_FAILS)]
        if low <= 0.5 <= high:
            meaning = "The interval holds 50\u00a0%, as it should."
        elif severity == "fine":
            meaning = "It is near 50\u00a0%, as it should be."
        else:
            meaning = (
                f"It takes the decoder's traces for a sign of {'unknown' if auroc > 0.5 else 'known'} "
                "images, and imagined outliers carry them. Raise --reconstruct.frac, or use a decoder with "
                "a better autoencoder."
            )
        yield Finding(
            kind="control",
            sets=(classifier,),
            count=seeds[0].n_ood,
            share=auroc,
            severity=severity,
            message=f"By {seeds[0].detector}, {classifier} separates reconstructed ID images from untouched "
            f"ones at AUROC {percent(auroc)} ({percent(low)} to {percent(high)}). {meaning}",
        )
