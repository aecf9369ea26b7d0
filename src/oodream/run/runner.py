"""Runs a job's stages: what is finished is skipped, what is stale is refused or made afresh, what was killed
goes on.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from ..config import Config
from ..core.distributed import barrier, from_main, is_main
from ..core.errors import shown
from ..core.files import write_json
from ..core.memory import Watch
from ..core.options import to_json
from ..core.types import Json
from .artifacts import Run
from .check import check
from .folder import RunDir, StageChanged, check_place, read_manifest
from .job import Job
from .lanes import Done, Lanes, Second, cores_shared, has_room
from .layout import FORMAT
from .plan import Plan
from .sources import kept_rows
from .stage import Stage

__all__ = ["CHANGED", "execute", "go", "in_words", "manifest", "of_other_data", "planned", "stages_afresh"]

CHANGED = "changed"


def execute(
    config: Config, folder: Path | str, *, command: str = "", until: str = "report", redo: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Run:  # fmt: skip
    """Runs a configuration in a folder, up to the stage `until`, and returns what is there.

    `redo` names stages to make afresh with all that follows; "changed" stands for those whose inputs are no
    longer the same. A second process does some stages meanwhile, where it may (see `has_room`). Raises
    ValueError or StoreError before any work for what can be known before it.
    """
    return go(Job(config, Path(folder), command), say, until, redo)


def go(
    job: Job, say: Callable[[str], None], until: str = "report", redo: Sequence[str] = (),
    others: Sequence[RunDir] = (),
) -> Run:  # fmt: skip
    """As `execute`, for a job; what `others` have made from equal inputs is linked, not made."""
    plan = planned(job, until, redo)
    with job.folder.locked() if is_main() else nullcontext():
        if is_main():
            prepare(job, plan, redo, others)
            say(f"  {'images':24} {in_sets(job)}")
        barrier(job.device)  # the first process is done removing
        with cores_shared(job.device):
            if has_room(job.device):
                run_side_by_side(job, plan, until, say)
            else:
                for stage in plan.until(until):
                    run_stage(job, plan, stage, say)
    return job.run


def planned(job: Job, until: str, redo: Sequence[str]) -> Plan:
    """The stages of a job that has been checked; ValueError or StoreError for what cannot be done, first for
    what is known before an image is read.
    """
    check_place(job.folder.path)
    read_manifest(job.folder.path)
    plan = Plan(job)
    last = max(plan.positions(until))
    for name in redo:
        if name != CHANGED and min(plan.positions(name)) > last:
            raise ValueError(f"--redo {name} comes after --until {until}: it would be removed and not made.")
    check(job)
    return plan


def run_side_by_side(job: Job, plan: Plan, until: str, say: Callable[[str], None]) -> None:
    """Runs the stages, those that may be done beside others in a second process."""
    lanes = Lanes(plan.until(until))

    def beside() -> None:
        try:
            while stage := lanes.take(second=True):
                run_stage(job, plan, stage, say, helper.do)
                lanes.finished(stage)
        except BaseException as error:  # is raised by the other lane
            lanes.fail(error)

    with Second(job) as helper:
        thread = threading.Thread(target=beside, daemon=True)
        thread.start()
        while stage := lanes.take(second=False):
            run_stage(job, plan, stage, say)
            lanes.finished(stage)


def prepare(job: Job, plan: Plan, redo: Sequence[str], others: Sequence[RunDir]) -> None:
    """Refuses what is stale, removes what is to be made afresh, links what `others` have, and writes
    `run.json`.
    """
    folder, inputs = job.folder, plan.inputs
    afresh = stages_afresh(job, plan, redo)
    with of_other_data(job):
        for name in plan.stages:
            if name not in afresh and folder.is_done(name, inputs[name]):
                folder.check_whole(name)
                # A process may have been killed when it had made the one mark and not removed the other.
                (folder.path / name / "begun.json").unlink(missing_ok=True)
    for name in reversed(plan.stages):
        if name in afresh:
            folder.remove(name)
    for name in plan.stages:
        folder.borrow(name, inputs[name], others)
    write_json(job.layout.manifest, {**manifest(job), "stages": list(plan.stages)}, sealed=True)


def refuse_stale(job: Job, plan: Plan, names: Collection[str]) -> None:
    """Raises StageChanged where one of the stages was made from other inputs."""
    with of_other_data(job):
        for name, inputs in plan.inputs.items():
            if name in names:
                job.folder.is_done(name, inputs)


@contextmanager
def of_other_data(job: Job) -> Iterator[None]:
    """Within the block a stage that was made from other inputs is put down to other data, where the folder is
    a run of some: it is rather two runs in one folder than one that has changed.
    """
    try:
        yield
    except StageChanged as error:
        before = (read_manifest(job.folder.path) or {}).get("config", {}).get("data", job.config.data)
        if before == job.config.data:
            raise
        raise StageChanged(
            f"{shown(job.folder.path)} is a run of {shown(str(before))}, and --data is "
            f"{shown(job.config.data)}. Choose another --run for it, or to put it in the place of the other "
            f"one: {error}"
        ) from error


def stages_afresh(job: Job, plan: Plan, redo: Sequence[str]) -> set[str]:
    """The stages to make afresh.

    What is stale for nothing but people's decisions about outliers is among them without being asked for.
    """
    afresh = {stage.name for stage in plan.from_([name for name in redo if name != CHANGED])}
    if CHANGED in redo:
        afresh |= {name for name, inputs in plan.inputs.items() if job.folder.changes(name, inputs)}
    if decided := decided_otherwise(job, plan, afresh):
        kept_rows(job.run)  # refuses where none is left
    return afresh.union(decided)


def decided_otherwise(job: Job, plan: Plan, afresh: Collection[str]) -> list[str]:
    """The stages that are stale because people decided otherwise about outliers, and for no other reason,
    and those that are stale because of them; without those that are made `afresh` anyway.
    """
    stale: list[str] = []
    for name, inputs in plan.inputs.items():
        if name in afresh:
            continue
        causes = {"curation", "added", *(f"after.{other}" for other in stale)}
        changed = [change.partition(": ")[0] for change in job.folder.changes(name, inputs)]
        if changed and all(key in causes or key.partition(".")[0] in causes for key in changed):
            stale.append(name)
    return stale


def run_stage(
    job: Job,
    plan: Plan,
    stage: Stage,
    say: Callable[[str], None],
    elsewhere: Callable[[Stage], Done] | None = None,
) -> None:
    """Has a stage's work done, here or `elsewhere`, unless it is done."""
    inputs = plan.inputs[stage.name]
    if from_main(lambda: job.folder.is_done(stage.name, inputs)):
        if is_main():
            say(f"  {stage.name:24} done before")
        return
    began = time.monotonic()
    if is_main():
        began -= job.folder.begin(stage.name, inputs)
    barrier(job.device)
    if elsewhere:
        say(f"  {stage.name:24} begun in a second process")
        summary, most = elsewhere(stage)
    else:
        with Watch(job.device) as memory:
            summary = stage.work(job) if stage.shared or is_main() else {}
        most = memory.most
    barrier(job.device)
    if is_main():
        seconds = time.monotonic() - began
        job.folder.finish(stage.name, inputs, seconds, {**summary, "memory": most})
        say(f"  {stage.name:24} {seconds:6.1f} s   {in_words(summary)}")
    barrier(job.device)
    if not is_main():
        job.folder.wait_for(stage.name)


def in_words(summary: Json) -> str:
    """A summary's numbers, and texts behind a colon, on one line, without what there is nothing to say of."""
    left_out = (dict, list, type(None))
    plain = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in summary.items()
        if not isinstance(value, left_out)
    }
    return ", ".join(
        f"{key.replace('_', ' ')}{':' if isinstance(value, str) else ''} {value}"
        for key, value in plain.items()
    )


def in_sets(job: Job) -> str:
    """How many images there are, and which OOD sets in which group."""
    sets = [f"{s.name} ({s.group}, {len(s.images)})" for s in job.inputs.ood]
    known = f"{len(job.inputs.train)} for training, {len(job.inputs.test)} for testing"
    if real := job.inputs.real:
        known += f"; real outliers: {len(real)}"
    return f"{known}; OOD: {', '.join(sets)}"


def manifest(job: Job) -> Json:
    """What `run.json` holds: the resolved configuration and what it ran on."""
    from .. import __version__

    versions = {"oodream": __version__, "torch": torch.__version__}
    return {
        "format": FORMAT,
        "command": job.command,
        "config": to_json(job.config),
        "device": str(job.device),
        "versions": versions,
        "git": git_state(),
    }


def git_state() -> str | None:
    """The commit this code stands at, with "+changes" where files differ from it; None where it is not a
    checkout.
    """

    def git(*args: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        # An installed package may lie in a stranger's repository.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
