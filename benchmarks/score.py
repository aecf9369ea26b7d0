"""Many pictures into a table: images a second and memory of `oodream score --out`, beside a plain loop
that reads a batch, asks the guard, writes lines, and reads the next.

JPEG files of 64 x 48 and of 640 x 480 pixels, a resnet8 of 32 pixels with random weights, energy score.
Programs take turns, each in a process of its own; rates are medians over wall-clock times without the start.
Longer lists name the same files again.

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
    """One measurement: seconds, and by how many MiB the process's resident set grew at most."""
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
        began = time.perf_counter()
        if program == "loop":
            loop(guard, Path(pictures), Path(room) / "out.jsonl")
        else:
            score_to(Path(room) / f"out.{program}", [pictures], guard, CPU)
        seconds = time.perf_counter() - began
    done.set()
    print(json.dumps([seconds, (largest[0] - start) / 2**20]))


def measured(program: str, guard: Path, pictures: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, "child", program, str(guard), str(pictures)]
    seconds, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, peak


def scoring(setting: Setting) -> Iterator[Row]:
    programs, rates, memory = ("loop", "jsonl", "parquet"), defaultdict(list), {}
    (n_small, n_large), lengths, rounds = setting.pick(
        ((5_000, 1_000), (5_000, 20_000, 80_000), 5),
        ((5_000, 1_000), (5_000, 20_000, 80_000), 5),
        ((40, 10), (40, 80), 1),
    )
    room = setting.room
    new_guard("resnet8")[0].save(room / "guard")
    small, large = draw(room / "small", n_small, 64, 48), draw(room / "large", n_large, 640, 480)
    sets = {listed(room, small, n_small): "64 x 48", listed(room, large, n_large): "640 x 480"}
    for pictures in (*sets,) * rounds:
        for program in programs:
            n = n_small if small[0].parent.name in pictures.name else n_large
            rates[program, pictures].append(n / measured(program, room / "guard", pictures)[0])
    for program in programs:
        for n in lengths:
            memory[program, n] = measured(program, room / "guard", listed(room, small, n))[1]
    for program in programs[1:]:
        grown = ", ".join(f"{memory[program, n]:.0f} MiB at {n:,}" for n in lengths)
        for pictures, size in sets.items():
            rate, its = (median(rates[name, pictures]) for name in (program, "loop"))
            yield Row(
                what=f"`oodream score --out`, {program}, JPEG files of {size}",
                value=rate,
                unit="pictures a second",
                reference="a plain loop",
                ratio=rate / its,
                more=f"memory grows by {grown}",
            )


LINES = {"scoring": scoring}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] == "child":
        child(*sys.argv[2:])
    else:
        alone(LINES)
