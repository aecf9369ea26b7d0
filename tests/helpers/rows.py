"""Measured rows with given numbers."""

from __future__ import annotations

from dataclasses import replace

from oodream.core.results import Row, ShiftRow
from tests.helpers.page import row


def control_row(classifier: str, auroc: float, half: float, seed: int = 0) -> Row:
    """A row on the control of reconstructed images, with an AUROC and half its interval."""
    measured = row(classifier, "reconstructed", "control", 0.95, seed=seed)
    return replace(measured, auroc=auroc, intervals={"auroc": (auroc - half, auroc + half)})


def shift_row(
    classifier: str, accuracy: float, flagged: float, dataset: str = "blur", severity: int = 1
) -> ShiftRow:
    return ShiftRow(
        classifier=classifier, seed=0, dataset=dataset, severity=severity, accuracy=accuracy, flagged=flagged,
        interval=(0.1, 0.9), n=10,
    )  # fmt: skip
