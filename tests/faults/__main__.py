"""The long form: `python -m tests.faults [CAMPAIGN ...]`. Prints a line of JSON for each fault, and what came
of all; the exit code is 1 where one was not survived.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.faults import campaigns, child, parts
from tests.faults.bench import Bench
from tests.faults.campaigns import Row

STAGES = (
    "/classes/", "/align/", "/features/", "/vectors/", "/images/imagined/", "/images/twins/", "/strips/",
    "/images/control/", "/images/reconstructed/", "/classifier/baseline", "/filter/",
    "/classifier/regularized", "/cache/", "/scores/", "results.jsonl", "/guard/", "/shift/", "/audit/",
    "/report/",
)  # fmt: skip
TWO = child.set_to("oodream.core.parallel:CORES", 2)
SHARES = (0.0, 0.4, 0.8, 1.1, 1.2, 1.3, 1.4, 1.5)  # states of trainings are removed in the end


def short(bench: Bench) -> dict[str, Callable[[], Iterator[Row]]]:
    """A few faults of some campaigns, in about a minute of work."""
    run, latents = bench.kind("run"), bench.kind("latents")
    return {
        "kill -9": lambda: campaigns.kills(run, 5, 0, each=5),
        "kill -9, latents": lambda: campaigns.kills(latents, 3, 3, each=3),
        "Ctrl-C": lambda: campaigns.kills(run, 3, 4, sent=signal.SIGINT, each=3),
        "kill -9, two at work": lambda: campaigns.kills(run, 4, 1, TWO, each=4),
        "full disk, each stage": lambda: campaigns.disks(run, ("/images/imagined/", "/report/")),
        "two processes": lambda: campaigns.races(run, 1),
    }


def chosen(bench: Bench, n: int) -> dict[str, Callable[[], Iterator[Row]]]:
    """The campaigns by name, each with n kills where it kills."""
    run, latents, compare = (bench.kind(name) for name in ("run", "latents", "compare"))
    return {
        "kill -9": lambda: campaigns.kills(run, n, 0),
        "kill -9, two at work": lambda: campaigns.kills(run, n // 5, 1, TWO),
        "kill -9, latents": lambda: campaigns.kills(latents, n // 5, 3),
        "kill -9, compare": lambda: campaigns.kills(compare, n // 5, 2),
        "Ctrl-C": lambda: campaigns.kills(run, n // 5, 4, sent=signal.SIGINT),
        "full disk, each stage": lambda: campaigns.disks(run, STAGES),
        "full disk, a small one": lambda: campaigns.filled_disks(run, SHARES),
        "read-only": lambda: campaigns.read_only(run, 200),
        "clock set back": lambda: campaigns.clocks(run, (120, 200, 300)),
        "two processes": lambda: campaigns.races(run, 3),
        "out of memory": lambda: campaigns.memory(run),
        "slow network disk": lambda: campaigns.slow_disks(run, 0.3),
        "damaged files, run": lambda: campaigns.damages(run, 5),
        "damaged files, latents": lambda: campaigns.damages(latents, 6),
        "damaged files, compare": lambda: campaigns.damages(compare, 7),
        "damaged files, begun run": lambda: campaigns.begun_damages(run, 8),
        "damaged files, guards": lambda: parts.guards(bench.room, 9),
        "damaged files, decoder": lambda: parts.decoders(bench, 10),
        "damaged files, answers": lambda: parts.answers(bench, 11),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("campaigns", nargs="*", help="these alone, by the beginnings of their names")
    parser.add_argument("--short", action="store_true", help="a few faults only")
    parser.add_argument("--kills", type=int, default=50, help="moments of the first campaign")
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as room:
        bench = Bench(Path(room))
        for name, campaign in (short(bench) if options.short else chosen(bench, options.kills)).items():
            if options.campaigns and not name.startswith(tuple(options.campaigns)):
                continue
            began, rows = child.cpu_seconds(), []
            for row in campaign():
                rows.append(row)
                print(json.dumps({"campaign": name, **row}), flush=True)
            failed = sum(not row["good"] for row in rows)
            bad += failed
            work = child.cpu_seconds() - began
            print(f"{name}: {len(rows)} faults, {failed} not survived{losses(rows)}; {work:.0f} s of work")
    return int(bad > 0)


def losses(rows: Sequence[Row]) -> str:
    """What was done twice, in words."""
    lost = [float(str(row["seconds lost"])) for row in rows if "seconds lost" in row]
    return f", {statistics.median(lost):.1f} s lost in the middle, {max(lost):.1f} at most" if lost else ""


if __name__ == "__main__":
    sys.exit(main())
