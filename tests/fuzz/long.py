"""The long form: every target with many inputs, led by which lines of the library they reach.

    python -m tests.fuzz.long --inputs 100000 --out fuzzed [TARGET ...]

It needs atheris (pip install atheris), which counts the lines. Each target runs in a process of its own,
which goes on after a fault: the inputs of each kind of fault lie below OUT/TARGET, the first ones of a kind
alone, and OUT/summary.tsv says how many inputs were run. A target whose process is ended by a signal (a fault
of a C library) is begun again for what is left, and said so.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSTRUMENTED = ("oodream",)
MEGABYTES = 6_000  # of memory that a target's process may have
SAME = 3  # inputs that are kept of one kind of fault


def main() -> int:
    """Runs the targets one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.0, help="of each target at most; 0: no limit")
    parser.add_argument("--out", type=Path, default=Path("fuzzed"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        return _inside(chosen.inside, chosen.inputs, chosen.seconds, chosen.out, chosen.seed)
    from .target import TARGETS, load

    load()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.targets or TARGETS:
        _supervised(name, chosen)
    return 0


def _supervised(name: str, chosen: argparse.Namespace) -> None:
    """A target's processes until its inputs are run; writes its line of the summary."""
    out: Path = chosen.out / name.replace(" ", "-")
    out.mkdir(exist_ok=True)
    began, ended, seed = time.monotonic(), 0, chosen.seed
    while (left := chosen.inputs - _done(out)) > 0:
        rest = chosen.seconds - (time.monotonic() - began) if chosen.seconds else 0.0
        if rest < 0:
            break
        before = _done(out)
        words = ["--inside", name, "--inputs", str(left), "--seconds", str(rest), "--out", str(out)]
        with (out / "log").open("ab") as log:
            code = subprocess.call(
                [sys.executable, "-m", "tests.fuzz.long", *words, "--seed", str(seed)], stdout=log, stderr=log
            )
        seed += 1
        ended += code < 0 or _done(out) == before
        if ended > 5 or (code == 0 and chosen.seconds):
            break
    state = json.loads((out / "state.json").read_text()) if (out / "state.json").exists() else {}
    faults = "; ".join(f"{n} x {kind}" for kind, n in state.get("faults", {}).items()) or "none"
    line = [
        name,
        state.get("inputs", 0),
        state.get("accepted", 0),
        state.get("cpu", 0),
        state.get("megabytes", 0),
        ended,
        faults,
    ]
    with (chosen.out / "summary.tsv").open("a") as file:
        print(*line, sep="\t", file=file)
    print(*line, sep="\t", flush=True)


def _done(out: Path) -> int:
    state = out / "state.json"
    return int(json.loads(state.read_text())["inputs"]) if state.exists() else 0


def _inside(name: str, inputs: int, seconds: float, out: Path, seed: int) -> int:
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from .target import TARGETS, kept, load

        load()
    from .verdict import fault_of

    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20, MEGABYTES << 20))
    target, began = TARGETS[name], time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    seeds, read = target.prepare(place)
    corpus = out / "seeds"
    corpus.mkdir(exist_ok=True)
    for data in [*seeds, *kept(name)]:
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    file = out / "state.json"
    state = (
        json.loads(file.read_text())
        if file.exists()
        else {"inputs": 0, "accepted": 0, "cpu": 0, "faults": {}}
    )
    earlier, before, accepted = state["cpu"], state["accepted"], 0

    def counted(data: bytes) -> object:
        nonlocal accepted
        result = read(data)
        accepted += 1
        return result

    def write() -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        state.update(
            accepted=before + accepted, cpu=round(earlier + usage.ru_utime + usage.ru_stime, 1),
            megabytes=usage.ru_maxrss >> 10,
        )  # fmt: skip
        file.write_text(json.dumps(state))

    def one(data: bytes) -> None:
        nonlocal accepted
        (out / "last").write_bytes(data)
        fault = fault_of(counted, data)
        state["inputs"] += 1
        if fault:
            n = state["faults"][fault] = state["faults"].get(fault, 0) + 1
            if n <= SAME:
                kind = hashlib.sha1(fault.encode()).hexdigest()[:8]
                (out / f"{kind}-{n}").write_bytes(data)
                (out / f"{kind}.txt").write_text(fault)
        if state["inputs"] % 500 == 0 or fault:
            write()
        if seconds and time.monotonic() - began > seconds:
            write()
            os._exit(0)  # libFuzzer would call any other end a fault

    def mutated(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.randrange(4):
            return target.mutate(data, rng)[:most]
        return bytes(atheris.Mutate(data, most))

    arguments = [
        sys.argv[0],
        f"-runs={inputs}",
        f"-seed={seed}",
        "-max_len=300000",
        "-timeout=60",
        "-rss_limit_mb=0",
        "-len_control=0",
        f"-artifact_prefix={out}/",
        str(corpus),
    ]
    atheris.Setup(arguments, one, custom_mutator=mutated)
    atexit.register(write)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
