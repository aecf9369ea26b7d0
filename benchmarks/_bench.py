"""What all benchmarks share: rows of a table, how time is taken, what the machine can do, and a profile.

A benchmark is a file with `LINES`: by name, a function of a `Setting` that yields `Row`s. `alone(LINES)` at
its end makes it a program.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from oodream.core.device import multiplies_bf16

__all__ = [
    "Line", "Row", "Setting", "alone", "bandwidth", "clock", "flops", "in_words", "machine",
    "measure", "parser", "profiled", "run", "short", "turns",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: `value` of `unit`, `ratio` times as good as `reference`, which was measured in
    the same run.

    `floor` says in words what no program of this arithmetic can beat here, and `share` how much of that is
    reached. `more` are other figures.
    """

    what: str
    value: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    floor: str = ""
    share: float | None = None
    more: str = ""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a benchmark runs, whether it is only tried (`tiny`), a folder for its files, and one for what
    stays: rows and profiles.
    """

    device: torch.device
    tiny: bool
    room: Path
    out: Path

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, cpu: Any, cuda: Any, tiny: Any) -> Any:
        """What suits the setting."""
        return tiny if self.tiny else cuda if self.cuda else cpu


Line = Callable[[Setting], Iterator[Row]]


# Time


def clock(work: Callable[[], object], device: torch.device) -> float:
    """The seconds of one call: on a CPU those of the processor, with its children's, so that what else the
    machine does counts for little; on a GPU those of the clock, until all that it has to do is done.
    """
    if device.type == "cpu":
        began = _processor()
        work()
        return _processor() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def turns(
    programs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """The median of each program's seconds; programs take turns, so that what else the machine does is
    shared.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, work in programs.items():
            times[name].append(clock(work, device))
    return {name: median(own) for name, own in times.items()}


def _processor() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# The machine


def machine(device: torch.device) -> str:
    """The machine in words: what a reader needs to place the numbers."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    words = [
        f"{os.cpu_count()} cores ({model}), {torch.get_num_threads()} threads used",
        f"PyTorch {torch.__version__}",
    ]
    return ", ".join([torch.cuda.get_device_name(), *words] if device.type == "cuda" else words)


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


@cache
def flops(device: torch.device, dtype: torch.dtype, convolution: bool = False) -> float:
    """Floating-point operations a second of a large matrix product: the ceiling that floors are made of.

    Of a convolution a GPU makes float32 products in TF32, as PyTorch has it.
    """
    n = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = convolution
    try:
        return 2 * n**3 / _best(lambda: a @ b, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


@cache
def bandwidth(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written."""
    a = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / _best(lambda: b.copy_(a), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        work()
    return min(clock(lambda: [work() for _ in range(5)], device) for _ in range(4)) / 5


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions, matrix products and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def multiplied(
    what: str, n: int, seconds: float, reference: str, its: float, flop: float, more: str = ""
) -> Row:
    """A line about n pictures that a processor multiplies in the fastest type it has, `flop` operations each,
    beside the reference's seconds for as many.
    """
    cpu = torch.device("cpu")
    dtype = torch.bfloat16 if multiplies_bf16(cpu) else torch.float32
    return Row(
        what=what, value=n / seconds, unit="a second", reference=reference, ratio=its / seconds,
        floor=f"{flop / 1e9:.3g} GFLOP for each, as {str(dtype).removeprefix('torch.')} matrix products",
        share=n / seconds * flop / flops(cpu, dtype), more=more,
    )  # fmt: skip


# A profile


def profiled(name: str, work: Callable[[], object], setting: Setting, top: int = 12) -> None:
    """Adds to profiles.json and profiles.txt the kernels (of a processor: operators) that take most time, and
    the share of the time in which the device was idle.
    """
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if setting.cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        seconds = clock(work, setting.device)
    spent, idle = _kernels(profiler) if setting.cuda else (_operators(profiler), None)
    largest = sorted(spent, key=lambda key: -spent[key][0])[:top]
    total = sum(time for time, _ in spent.values()) or 1.0
    rows = [{"name": key, "share": spent[key][0] / total, "calls": spent[key][1]} for key in largest]
    file = setting.out / "profiles.json"
    profiles = json.loads(file.read_text()) if file.exists() else {}
    profiles[name] = {"seconds": seconds, "idle": idle, "top": rows}
    file.write_text(json.dumps(profiles, indent=1))
    lines = [f"{name}: {seconds:.2f} s" + ("" if idle is None else f", GPU idle {idle:.0%}")]
    lines += [f"{row['share']:6.1%} {row['calls']:7d} x  {row['name'][:140]}" for row in rows]
    with (setting.out / "profiles.txt").open("a") as text:
        text.write("\n".join(lines) + "\n\n")
    print("\n".join(line[:100] for line in lines[:5]), flush=True)


Spent = dict[str, tuple[float, int]]  # seconds and calls


def _kernels(profiler: Any) -> tuple[Spent, float]:
    """What a GPU did, and the share of the time from its first to its last kernel in which it did nothing."""
    from torch.autograd import DeviceType

    kernels = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end) for event in kernels)
    spent: dict[str, list[float]] = defaultdict(list)
    for event in kernels:
        spent[event.name].append((event.time_range.end - event.time_range.start) / 1e6)
    window = max(end for _, end in spans) - spans[0][0]
    return {name: (sum(seconds), len(seconds)) for name, seconds in spent.items()}, 1 - _union(spans) / window


def _operators(profiler: Any) -> Spent:
    """What a processor did."""
    return {row.key: (row.self_cpu_time_total / 1e6, row.count) for row in profiler.key_averages()}


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """The time that sorted spans cover together."""
    covered, reached = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


# Running


def measure(lines: Mapping[str, Line], setting: Setting) -> dict[str, list[Row]]:
    """The rows of all lines. Each is printed as soon as it is there, and kept in `rows.json` of the setting's
    folder; a line that is finished there is not measured again.
    """
    file = setting.out / "rows.json"
    fresh: dict[str, Any] = {"machine": machine(setting.device), "finished": [], "lines": {}}
    kept = json.loads(file.read_text()) if file.exists() else fresh
    for name, line in lines.items():
        if name in kept["finished"]:
            print(f"{name}: measured before", flush=True)
            continue
        began, kept["lines"][name] = time.perf_counter(), []
        try:
            with redirect_stderr(StringIO()):  # lines of progress would stand between the rows
                for row in line(setting):
                    print(f"{name}: {in_words(row)}", flush=True)
                    kept["lines"][name].append(asdict(row))
                    file.write_text(json.dumps(kept, indent=1))
        except Exception as error:  # the other lines are worth their time
            traceback.print_exc()
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            continue
        kept["finished"].append(name)
        file.write_text(json.dumps(kept, indent=1))
        print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    return {name: [Row(**row) for row in kept["lines"][name]] for name in lines}


def in_words(row: Row) -> str:
    """A row as one line of text."""
    parts = [f"{row.what}: {short(row.value)} {row.unit}"]
    if row.ratio is not None:
        parts.append(f"{short(row.ratio)} times {row.reference}")
    if row.floor:
        parts.append(f"floor: {row.floor}" + ("" if row.share is None else f", {row.share:.0%} reached"))
    if row.more:
        parts.append(row.more)
    return "; ".join(parts)


def short(x: float) -> str:
    """Three digits."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("lines", nargs="*", help="which lines to measure (default: all)")
    options.add_argument("--device", default="cpu")
    options.add_argument("--tiny", action="store_true", help="only try it: a few images, a few steps")
    options.add_argument(
        "--out", type=Path, help="a folder for rows.json and profiles; what is there is not measured again"
    )
    return options


def run(lines: Mapping[str, Line], arguments: argparse.Namespace) -> tuple[dict[str, list[Row]], str]:
    """Measures lines where and how the command line says; returns their rows, and the machine in words."""
    if (device := torch.device(arguments.device)).type == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        out = arguments.out or room
        out.mkdir(parents=True, exist_ok=True)
        setting = Setting(device=device, tiny=arguments.tiny, room=room, out=out)
        return measure(lines, setting), machine(device)


def alone(lines: Mapping[str, Line]) -> None:
    """Measures a file's lines, or those of them that the command line names."""
    arguments = parser().parse_args()
    if unknown := [name for name in arguments.lines if name not in lines]:
        raise SystemExit(f"There is no line {unknown[0]!r}. There are: {', '.join(lines)}.")
    run({name: lines[name] for name in arguments.lines or lines}, arguments)
