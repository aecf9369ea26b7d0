"""Measured rows with given numbers."""

from __future__ import annotations

from oodream.core.results import Row


def control_row(classifier: str, auroc: float, half: float, seed: int = 0) -> Row:
    """A row on the control of reconstructed images, with an AUROC and half its interval."""
    return Row(
        classifier=classifier,
        detector="energy",
        dataset="reconstructed",
        group="control",
        seed=seed,
        auroc=auroc,
        aupr_out=0.5,
        aupr_in=0.5,
        fpr95_id=0.95,
        fpr95_ood=0.95,
        accuracy=0.9,
        n_id=1000,
        n_ood=1000,
        autc=0.5,
        oscr=0.5,
        calibration_error=0.1,
        misclassification_auroc=None,
        intervals={"auroc": (auroc - half, auroc + half)},
    )
