"""What a run would do, without doing it: of each stage whether it is done, would be made, or made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..config import Config
from ..core.errors import listed
from ..core.storage import Storage, cached_at, is_url
from .changes import in_words
from .job import Job
from .plan import Plan
from .runner import planned, refuse_stale, stages_afresh
from .sync import fetched

__all__ = ["preview", "preview_job"]

MARKS = ("added/", "classes/", "filter/", "vectors/", "stage.json", "begun.json")
"""How the names of those files below a run's folder begin or end that a preview may read."""


def preview(
    config: Config, place: str, *, until: str = "report", redo: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """`preview_job` of the run at a place, which may be in a bucket."""
    preview_job(Job(config, _looked_at(place)), until, redo, say)


def preview_job(job: Job, until: str, redo: Sequence[str], say: Callable[[str], None]) -> None:
    """Says a line about each stage that `execute` with these arguments would look at, and writes nothing.

    Raises what `execute` raises before any work; a stage that it would refuse, because the stage was made
    from other inputs, is refused when all lines are said.
    """
    plan = planned(job, until, redo)
    afresh, wanted = stages_afresh(job, plan, redo), {stage.name for stage in plan.until(until)}
    for name in plan.stages:
        if name in wanted or name in afresh:
            again = "would be made again" if name in wanted else "would be removed"
            say(f"  {name:24} {_state(job, plan, name, again if name in afresh else '', redo)}")
    refuse_stale(job, plan, wanted - afresh)


def _looked_at(place: str) -> Path:
    """The folder at a place; of one in a bucket a copy of what says how far the run is."""
    if not is_url(place):
        return Path(place)
    if not Storage(place).listed(""):  # a new one
        return cached_at(place, "runs")
    return fetched(place, lambda name: "/" not in name or name.startswith(MARKS) or name.endswith(MARKS))


def _state(job: Job, plan: Plan, name: str, again: str, redo: Sequence[str]) -> str:
    """What would happen to a stage; `again` says so where it is to be made afresh."""
    if not (job.layout.stage(name) / "begun.json").exists() and not job.folder.stamp(name):
        return "would be made"
    changes = job.folder.changes(name, plan.inputs[name])
    own = [change for change in changes if not change.startswith("after.")]
    before = [change.partition(": ")[0].removeprefix("after.") for change in changes if change not in own]
    why = listed(map(in_words, own), "; ") if own else f"it comes after {listed(before)}" if before else ""
    if again:
        return f"{again}: {why or ' '.join(['--redo', *redo])}"
    if changes:
        return f"was made from other inputs: {why}"
    return "done before" if job.folder.stamp(name) else "would go on where it stopped"
