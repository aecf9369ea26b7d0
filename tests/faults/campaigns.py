"""One campaign for each kind of fault: what was done, what came of it."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.faults import child
from tests.faults.artefacts import differing, finished_files, leftovers
from tests.faults.bench import Kind

__all__ = ["damages", "disks", "kills"]

Row = dict[str, object]


def kills(kind: Kind, n: int, seed: int, sent: int = signal.SIGKILL, by: str = "event") -> list[Row]:
    """The run ended at n random moments, each time from the beginning, and the same command again.

    Moments are events or, by "time", moments of the undisturbed run's seconds.
    """
    _, ended = kind.calm
    g, rows = random.Random(seed), []
    for i in range(n):
        folder = kind.fresh("killed")
        if by == "event":
            at = g.randint(1, ended.events) if n < ended.events else 1 + i * ended.events // n
            first = child.run(kind.args(folder), folder, child.at_event(at, sent))
        else:
            at = g.uniform(0.05, 1.0) * ended.seconds
            first = child.run(kind.args(folder), folder, kill_after=at, sent=sent)
        rows.append({"at": at} | went_on(kind, folder, first))
        shutil.rmtree(folder)
    return rows


def went_on(kind: Kind, folder: Path, first: child.Ended) -> Row:
    """The same command again, and whether all is as if nothing had been."""
    calm, ended = kind.calm
    before = finished_files(folder) if folder.exists() else {}
    stages = [str(p.parent.relative_to(folder)) for p in folder.rglob("stage.json")]
    again = child.run(kind.args(folder), folder)
    after = finished_files(folder)
    lost = first.cpu + again.cpu - ended.cpu - kind.idle.cpu
    redone = [name for name in stages if kind.name != "compare" and name not in again.skipped]
    return {
        "ended": first.code,
        "said": last_line(first.err),
        "finished": len(stages),
        "again": again.code,
        "error": last_line(again.err) if again.code else "",
        "differing": differing(calm, folder),
        "redone": redone + [name for name, facts in before.items() if after.get(name) != facts],
        "leftovers": leftovers(folder),
        "seconds lost": round(max(lost, 0.0), 2),
    }


def disks(kind: Kind, places: Sequence[str]) -> list[Row]:
    """No room at each place in turn, in one run, which goes on from there each time; then room."""
    folder, rows = kind.fresh("full"), []
    for place in places:
        ended = child.run(kind.args(folder), folder, child.full_disk(place))
        clear = "disk is full" in ended.err and "Traceback" not in ended.err
        rows.append({"at": place, "ended": ended.code, "clear": clear, "leftovers": leftovers(folder)})
        if not clear:
            rows[-1]["said"] = ended.err[-300:]
    rows.append({"at": "room made"} | went_on(kind, folder, ended))
    return rows


def damages(kind: Kind, seed: int, files: Sequence[str] = ()) -> list[Row]:
    """Every file of a finished run cut short, and with a bit flipped; then the same command again."""
    calm, _ = kind.calm
    g, rows = random.Random(seed), []
    names = files or [str(p.relative_to(calm)) for p in sorted(calm.rglob("*")) if p.is_file()]
    folder = kind.copied("damaged")
    for name in names:
        whole = (calm / name).read_bytes()
        for how in ("cut", "flipped"):
            if not whole:
                continue
            (folder / name).write_bytes(damaged(whole, how, g))
            ended = child.run(kind.args(folder), folder)
            text = ended.out + ended.err
            now = (folder / name).read_bytes() if (folder / name).exists() else b""
            rows.append({
                "file": name, "how": how, "code": ended.code, "named": Path(name).name in text,
                "restored": name not in differing(calm, folder) if ended.code == 0 else now == whole,
                "said": last_line(ended.err),
            })  # fmt: skip
            shutil.copy2(calm / name, folder / name)
    return rows


def damaged(whole: bytes, how: str, g: random.Random) -> bytes:
    """The bytes cut short, or with one bit flipped, somewhere."""
    at = g.randrange(len(whole))
    if how == "cut":
        return whole[:at]
    return whole[:at] + bytes([whole[at] ^ 1 << g.randrange(8)]) + whole[at + 1 :]


def last_line(text: str) -> str:
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
