"""audit.control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from ..core.results import Row
from .finding import SEVERITIES, Finding, percent

CONTROL_WARNS, CONTROL_FAILS = 0.05, 0.1  # how far from 50 % the control may be


# The reconstructed-ID control ------------------------------------------------------------------------------------------------


def controlled(rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether the classifiers score ID images that went through the decoder's autoencoder as the ID images they are.

    Of every classifier the first detector's AUROC is judged, and its interval; over seeds the means of both.
    """
    for classifier in dict.fromkeys(row.classifier for row in rows):
        mine = [row for row in rows if row.classifier == classifier]
        first = [row for row in mine if row.detector == mine[0].detector]
        mean = fmean(row.auroc for row in first)
        low, high = (
            fmean(row.intervals.get("auroc", (row.auroc,) * 2)[end] for row in first) for end in (0, 1)
        )
        off = 0.0 if low <= 0.5 <= high else abs(mean - 0.5)
        severity = SEVERITIES[2 - (off >= CONTROL_WARNS) - (off >= CONTROL_FAILS)]
        sign = "the unknown" if mean > 0.5 else "the known"
        meaning = (
            "50\u00a0% lies within the interval, as it should." if low <= 0.5 <= high
            else "Near 50\u00a0%, as it should be." if severity == "fine"
            else f"It takes the decoder's traces for a sign of {sign}, and outliers carry them. Raise "
            "train.reconstruction_frac, or use a decoder with a better autoencoder."
        )  # fmt: skip
        yield Finding(
            kind="control", sets=(classifier,), count=first[0].n_ood, share=mean, severity=severity,
            message=f"{classifier} tells reconstructed ID images from the untouched ones at AUROC {percent(mean)} "
            f"({percent(low)} to {percent(high)}). {meaning}",
        )  # fmt: skip
