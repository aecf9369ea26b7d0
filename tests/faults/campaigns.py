"""One campaign for each kind of fault over whole runs: what was done, and what came of it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults import child
from tests.faults.artefacts import differing, finished_files, leftovers
from tests.faults.bench import Kind

__all__ = [
    "Row",
    "begun_damages",
    "clocks",
    "damages",
    "disks",
    "filled_disks",
    "kills",
    "memory",
    "races",
    "read_only",
    "slow_disks",
]

Row = dict[str, object]
SEAL = b"oodream-seal:"
FUTURE = 10 * 365 * 86400  # seconds by which files are newer than the clock says


def kills(
    kind: Kind, n: int, seed: int, *always: child.Fault, sent: int = signal.SIGKILL, each: int = 10
) -> Iterator[Row]:
    """Runs that are ended n times in all, `each` times over one run, by the same command each time; then it
    may finish.

    Every other moment is an event, just before a file changes; the others are seconds of the processor's
    time. They are random, and spread over the whole run. What is `always` so happens to each command.
    """
    _, calm = kind.calm
    g = random.Random(seed)
    for start in range(0, n, each):
        folder, ends, redone = kind.fresh("killed"), [], []
        for i in range(start, min(start + each, n)):
            share = g.uniform(0, 2) / each
            before = finished(folder)
            if i % 2:
                at = f"event {(event := kind.idle.events + 1 + int(share * calm.events))}"
                ended = child.run(kind.args(folder), folder, *always, child.at_event(event, sent))
            else:
                at = f"{(seconds := kind.idle.cpu * 0.8 + share * (calm.cpu - kind.idle.cpu)):.2f} s"
                ended = child.run(kind.args(folder), folder, *always, child.at_cpu(seconds, sent))
            redone += lost_of(before, folder, ended, kind)
            ends.append({"at": at, "ended": ended.code, "stages": len(finished(folder)[0]), "cpu": ended.cpu})
        yield {"ends": ends, "redone before": redone} | went_on(kind, folder, *ends)


Finished = tuple[list[str], dict[str, tuple[int, int]]]


def finished(folder: Path) -> Finished:
    """The stages that are finished, and the files that must stay as they are."""
    if not folder.exists():
        return [], {}
    stages = [str(mark.parent.relative_to(folder)) for mark in folder.rglob("stage.json")]
    return stages, finished_files(folder)


def lost_of(before: Finished, folder: Path, ended: child.Ended, kind: Kind) -> list[str]:
    """What was finished before a command, and was done again by it."""
    stages, files = before
    after = finished_files(folder)
    again = [
        name for name in stages if ended.code == 0 and kind.name != "compare" and name not in ended.skipped
    ]
    return again + [name for name, facts in files.items() if after.get(name) != facts]


def went_on(kind: Kind, folder: Path, *ends: Row) -> Row:
    """The same command again, and whether all is as if nothing had been. Of commands that were `ends`, their
    seconds.
    """
    calm, ended = kind.calm
    before = finished(folder)
    again = child.run(kind.args(folder), folder)
    spent = [float(str(end["cpu"])) for end in ends] + [again.cpu]
    lost = sum(spent) - ended.cpu - (len(spent) - 1) * kind.idle.cpu
    row: Row = {
        "stages": len(before[0]),
        "again": again.code,
        "error": last_line(again.err) if again.code else "",
        "differing": differing(calm, folder),
        "redone": lost_of(before, folder, again, kind),
        "leftovers": leftovers(folder),
        "seconds lost": round(max(lost, 0.0) / max(len(ends), 1), 2),
    }
    good = again.code == 0 and not row["differing"] and not row["redone"] and not row["leftovers"]
    row["good"] = good
    if good:
        shutil.rmtree(folder)
    return row


def disks(kind: Kind, places: Sequence[str]) -> Iterator[Row]:
    """No room at each place in turn, in one run, which goes on from there each time; then room."""
    folder = kind.fresh("full")
    for place in places:
        ended = child.run(kind.args(folder), folder, child.full_disk(place))
        yield refused(ended, folder, place, "disk is full")
    yield {"at": "room made"} | went_on(kind, folder)


def refused(ended: child.Ended, folder: Path, at: object, words: str) -> Row:
    """Whether a command ended with a clear error that has these words, and left nothing half-written."""
    clear = ended.code == 2 and words in ended.err and "Traceback" not in ended.err
    half = leftovers(folder)
    return {
        "at": at,
        "ended": ended.code,
        "said": last_line(ended.err),
        "leftovers": half,
        "good": clear and not half,
    }


def filled_disks(kind: Kind, shares: Sequence[float]) -> Iterator[Row]:
    """A file system of its own for the run that holds a share of its bytes, each time a larger one, and in
    the end all of them.
    """
    calm, _ = kind.calm
    whole = sum(file.stat().st_size for file in calm.rglob("*") if file.is_file())
    with mounted(kind.bench.room / "disk") as (disk, resize):
        folder = disk / f"full-{kind.name}"
        for share in shares:
            resize(f"size={int(share * whole) // 1024 + 64}k")
            ended = child.run(kind.args(folder), kind.bench.room / "disk-run")
            if ended.code == 0:
                break
            yield refused(ended, folder, f"{share:.0%} of its bytes", "disk is full")
        resize("size=256m")
        yield {"at": "room made"} | went_on(kind, folder)


def read_only(kind: Kind, stop: int) -> Iterator[Row]:
    """A run that was killed at an event, in a file system that has become read-only; then writable again."""
    with mounted(kind.bench.room / "disk") as (disk, resize):
        folder = disk / f"sealed-{kind.name}"
        first = child.run(kind.args(folder), folder, child.at_event(stop))
        resize("ro")
        ended = child.run(kind.args(folder), kind.bench.room / "disk-run")
        row = refused(ended, folder, f"event {stop}", "cannot be written")
        yield row | {"good": row["good"] or ("cannot be written" in ended.err and first.code == -9)}
        resize("rw")
        yield {"at": "writable again"} | went_on(kind, folder)


@contextmanager
def mounted(place: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system in memory, and what changes its options; needs the rights to mount one."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(place)], check=True)
    try:
        yield place, lambda options: void(["mount", "-o", f"remount,{options}", str(place)])
    finally:
        void(["umount", str(place)])


def void(words: Sequence[str]) -> None:
    subprocess.run(words, check=True)


def damages(kind: Kind, seed: int, names: Sequence[str] = ()) -> Iterator[Row]:
    """Every file of a finished run cut short, and with a bit flipped; then the same command again, which must
    name it, or make it as it was.
    """
    calm, _ = kind.calm
    g = random.Random(seed)
    folder = kind.copied("damaged")
    for name in names or one_of_each_kind(calm):
        if kind.name == "compare" and "/cache/" in name:
            continue
        whole = (calm / name).read_bytes()
        for how in ("cut", "flipped") if whole else ():
            (folder / name).write_bytes(damaged(whole, how, g))
            cached = kind.name != "compare" and name.startswith("cache/")  # which only a stage at work reads
            ended = child.run([*kind.args(folder), *(["--redo", "scores"] if cached else [])], folder)
            named = ended.code == 2 and Path(name).name in ended.err and "Traceback" not in ended.err
            as_it_was = ended.code == 0 and name not in differing(calm, folder)
            yield {
                "file": name, "how": how, "named": named, "made again": as_it_was,
                "said": last_line(ended.err), "good": named or as_it_was,
            }  # fmt: skip
            shutil.copy2(calm / name, folder / name)
            for other in differing(calm, folder):
                shutil.copy2(calm / other, folder / other)


def one_of_each_kind(run: Path) -> list[str]:
    """The files of a folder, but for those whose names differ from one before in numbers and hashes alone."""
    names = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    return list({re.sub(r"[0-9a-f]{8,}|\d+", "N", name): name for name in reversed(names)}.values())[::-1]


def damaged(whole: bytes, how: str, g: random.Random) -> bytes:
    """The bytes cut short, or with one bit flipped, somewhere, but in the mark of a seal: a file without one
    is as right as before.
    """
    mark = whole.find(SEAL)
    at = g.choice([i for i in range(len(whole)) if mark < 0 or not -9 <= i - mark < len(SEAL)])
    if how == "cut":
        return whole[:at]
    return whole[:at] + bytes([whole[at] ^ 1 << g.randrange(8)]) + whole[at + 1 :]


def clocks(kind: Kind, stops: Sequence[int]) -> Iterator[Row]:
    """The run killed at these events in turn; each time all its files are then ten years newer than the clock
    says, as where the clock has been set back.
    """
    folder = kind.fresh("clock")
    for stop in stops:
        child.run(kind.args(folder), folder, child.at_event(stop))
        for path in [folder, *folder.rglob("*")]:
            stat = path.lstat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + FUTURE * 10**9))
    yield {"at": list(stops)} | went_on(kind, folder)


def races(kind: Kind, n: int) -> Iterator[Row]:
    """Two processes that begin the same run at once: one says that it is in use, and the other finishes."""
    calm, _ = kind.calm
    for _ in range(n):
        folder = kind.fresh("race")
        ended = child.run_together([kind.args(folder)] * 2, folder)
        codes = sorted(one.code for one in ended)
        said = [last_line(one.err) for one in ended if one.code == 2]
        good = (
            codes == [0, 2]
            and "Another oodream process is working in" in said[0]
            and not differing(calm, folder)
        )
        yield {"ended": codes, "said": said, "differing": differing(calm, folder), "good": good}


def memory(kind: Kind) -> Iterator[Row]:
    """Memory that gives out in drawing, training and evaluation, each in a run of its own."""
    for name, fault, words, code in child.MEMORY:
        folder = kind.fresh("memory")
        first = child.run(kind.args(folder), folder, fault)
        said = words in first.err and first.code == code and "Traceback" not in first.err
        row = {"at": name, "ended": first.code, "said": last_line(first.err)} | went_on(kind, folder)
        yield row | {"good": said and row["again"] == 0 and (code == 0 or bool(row["good"]))}


def slow_disks(kind: Kind, seconds: float) -> Iterator[Row]:
    """Two processes that draw their shares on a disk where renames take so long and are seen as much later;
    then the run goes on there, too.
    """
    folder, slow = kind.fresh("slow"), child.slow_renames(seconds)
    child.run([*kind.args(folder), "--until", "vectors"], folder, slow)
    shares = [["decode", str(folder), "--device", "cpu", "--shard", f"{i}/2"] for i in range(2)]
    drawn = child.run_together(shares, folder, slow)
    first = child.run([*kind.args(folder), "--until", "images"], folder, slow)
    codes = [one.code for one in (*drawn, first)]
    said = [last_line(one.err) for one in (*drawn, first) if one.code]
    row = {"at": f"{seconds:g} s late"} | went_on(kind, folder) | {"ended": codes, "said": said}
    yield row | {"good": row["good"] and codes == [0, 0, 0]}


def last_line(text: str) -> str:
    """The last thing that a command said."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:400] if lines else ""


def begun_damages(kind: Kind, seed: int) -> Iterator[Row]:
    """A run that was killed while it drew, and while it trained; then each file of the unfinished stage cut
    short, and with a bit flipped; then the same command again.
    """
    calm, _ = kind.calm
    g = random.Random(seed)
    for what, fault in (("drawing", child.killed(child.UNET, 9)), ("training", child.killed(child.STEP, 11))):
        begun = kind.fresh("begun")
        child.run(kind.args(begun), begun, fault)
        stages = [mark.parent for mark in begun.rglob("begun.json")]
        names = [
            name for name in one_of_each_kind(begun) if any((begun / name).is_relative_to(s) for s in stages)
        ]
        for name in names:
            for how in ("cut", "flipped"):
                folder = kind.fresh("damaged")
                shutil.copytree(begun, folder)
                (folder / name).write_bytes(damaged((begun / name).read_bytes(), how, g))
                ended = child.run(kind.args(folder), folder)
                said = Path(name).name in ended.err and "Traceback" not in ended.err
                good = said if ended.code == 2 else ended.code == 0 and not differing(calm, folder)
                yield {
                    "file": f"{what}: {name}", "how": how, "code": ended.code, "named": said,
                    "differing": differing(calm, folder) if ended.code == 0 else [], "good": good,
                }  # fmt: skip
