"""What stages share that train or count."""

from __future__ import annotations

from torch import Tensor

from ...core.files import write_json
from ..job import Job

__all__ = ["fraction", "save_log"]


def save_log(job: Job, stage: str, log: list[dict[str, float]]) -> None:
    """Keeps a finished training's log, and drops the state that it would have gone on from."""
    write_json(job.layout.log(stage), log)
    job.layout.resume_state(stage).unlink(missing_ok=True)


def fraction(hits_N: Tensor) -> float:
    """The share of True, to four digits."""
    return round(hits_N.float().mean().item(), 4)
