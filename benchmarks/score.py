"""Many pictures into a table: images a second and memory of `oodream score --out`, beside a plain loop
that reads a batch, asks the guard, writes lines, and reads the next.

JPEG files of 64 x 48 and of 640 x 480 pixels, a resnet8 of 32 pixels with random weights, energy score.
Programs take turns, each in a process of its own. Rates are pictures for a second of the processor's time
without the start, medians of the turns; "by the clock" is how many times as fast a program is as the loop of
the same turn for who waits, which reading ahead on other cores decides. Longer lists name the same files
again.

python benchmarks/score.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
import torch
from _bench import Row, Setting, alone
from _guards import SIZE, new_guard
from PIL import Image

from oodream.core.files import encode_json
from oodream.data.images import from_array
from oodream.data.preprocess import read_image
from oodream.deploy.guard import Guard
from oodream.deploy.resumed import score_to
from oodream.deploy.tables import row_of, table_for

__all__ = ["LINES", "draw"]

BATCH = 256
PROGRAMS = ("loop", "jsonl", "parquet")
CPU = torch.device("cpu")


def draw(folder: Path, n: int, width: int, height: int) -> list[Path]:
    """Files of smooth colours with some noise."""
    g, files = np.random.default_rng(0), [folder / f"{i:06}.jpg" for i in range(n)]
    folder.mkdir()
    for file in files:
        blobs = Image.fromarray(g.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
        pixels = np.asarray(blobs).astype(int) + g.integers(-9, 10, (height, width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return files


def listed(folder: Path, files: list[Path], n: int) -> Path:
    """A list of so many of the files, from the first one again after the last."""
    names = map(str, islice(cycle(files), n))
    file = folder / f"{files[0].parent.name}-{n}.txt"
    file.write_text("\n".join(names))
    return file


def loop(guard: Guard, pictures: Path, out: Path) -> None:
    """One thing after the other."""
    with pictures.open() as names, out.open("wb") as lines:
        while part := [Path(name.strip()) for name in islice(names, BATCH)]:
            pixels = torch.stack([read_image(file, SIZE) for file in part])
            images = from_array("files", pixels, torch.zeros(len(part)), ())
            for file, prediction in zip(part, guard(images, CPU), strict=True):
                lines.write(encode_json(row_of(str(file), prediction)) + b"\n")


def child(program: str, guard_folder: str, pictures: str) -> None:
    """One measurement: seconds of the processor and of the clock, and by how many MiB the process's resident
    set grew at most.
    """
    torch.set_num_threads(1)
    guard = Guard.load(guard_folder)
    table_for(Path("x.parquet"))  # imports what writes it
    process, largest, done = psutil.Process(), [0], threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.02):
            largest[0] = max(largest[0], process.memory_info().rss)

    with tempfile.TemporaryDirectory() as room:
        threading.Thread(target=watch).start()
        began, worked = time.perf_counter(), time.process_time()
        if program == "loop":
            loop(guard, Path(pictures), Path(room) / "out.jsonl")
        else:
            score_to(Path(room) / f"out.{program}", [pictures], guard)
        work, seconds = time.process_time() - worked, time.perf_counter() - began
    done.set()
    print(json.dumps([work, seconds, (largest[0] - start) / 2**20]))


class Measured(NamedTuple):
    """Seconds of the processor and of the clock, and MiB."""

    work: float
    seconds: float
    growth: float


def measured(program: str, guard: Path, pictures: Path) -> Measured:
    command = [sys.executable, __file__, "child", program, str(guard), str(pictures)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(*json.loads(done.stdout))


def scoring(setting: Setting) -> Iterator[Row]:
    (n_small, n_large), lengths, rounds = setting.pick(
        ((5_000, 1_000), (5_000, 20_000, 40_000), 3),
        ((5_000, 1_000), (5_000, 20_000, 40_000), 3),
        ((40, 10), (40, 80), 1),
    )
    room, turns = setting.room, defaultdict[tuple[str, Path], list[Measured]](list)
    new_guard("resnet8")[0].save(room / "guard")
    small, large = draw(room / "small", n_small, 64, 48), draw(room / "large", n_large, 640, 480)
    sets = {
        listed(room, small, n_small): (n_small, "64 x 48"),
        listed(room, large, n_large): (n_large, "640 x 480"),
    }
    for pictures in (*sets,) * rounds:
        for program in PROGRAMS:
            turns[program, pictures].append(measured(program, room / "guard", pictures))
    for program in PROGRAMS[1:]:
        growth = {n: measured(program, room / "guard", listed(room, small, n)).growth for n in lengths}
        grown = ", ".join(f"{grew:.0f} MiB at {n:,}" for n, grew in growth.items())
        for pictures, (n, size) in sets.items():
            mine, loops = turns[program, pictures], turns["loop", pictures]
            work, its = (median(one.work for one in own) for own in (mine, loops))
            faster = median(b.seconds / a.seconds for a, b in zip(mine, loops, strict=True))
            yield Row(
                what=f"`oodream score --out`, {program}, JPEG files of {size}",
                value=n / work,
                unit="pictures a second of the processor",
                reference="a plain loop",
                ratio=its / work,
                more=f"by the clock {faster:.2f} times; memory grows by {grown}",
            )


LINES = {"scoring": scoring}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] == "child":
        child(*sys.argv[2:])
    else:
        alone(LINES)
