"""Many pictures into a table: images a second and memory of `oodream score --out`, beside a plain loop
that reads a batch, asks the guard, writes lines, and reads the next.

Small JPEG files of 64 x 48 pixels, a resnet8 of 32 pixels with random weights, energy score. Programs take
turns, each in a process of its own; rates are medians over wall-clock times without the start.

python benchmarks/score.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image

from oodream.core.files import encode_json
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import from_array
from oodream.data.preprocess import read_image
from oodream.data.scan import image_files
from oodream.deploy.guard import Guard
from oodream.deploy.resumed import score_to
from oodream.deploy.tables import row_of, table_for
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone

SIZE, BATCH, ROUNDS = 32, 256, 5
FEW, MANY = 5_000, 20_000
CPU = torch.device("cpu")


def new_guard() -> Guard:
    """A guard around random weights."""
    train, test = (fashion(split, FASHION_ID, size=SIZE) for split in ("train", "test"))
    with seeded(0, "benchmark"):
        network = backbone("resnet8", len(train.classes)).eval()
    settings = {"backbone": "resnet8", "loss": "cross_entropy", "loss_options": {}}
    classifier = Classifier(
        network=network, loss=make("losses", "cross_entropy"), names=train.classes, size=SIZE,
        threshold=0.0, settings=settings,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights rank at random
        return Guard.calibrate(
            classifier, "energy", train.subset(torch.arange(600)), test.subset(torch.arange(1000))
        )


def draw(folder: Path, n: int) -> None:
    """Smooth colours with some noise."""
    g = np.random.default_rng(0)
    for i in range(n):
        blobs = Image.fromarray(g.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
        pixels = np.asarray(blobs).astype(int) + g.integers(-9, 10, (48, 64, 3))
        file = folder / f"{i // 1000:03}" / f"{i:06}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def loop(guard: Guard, folder: Path, out: Path) -> None:
    """One thing after the other."""
    files = image_files(folder)
    with out.open("wb") as lines:
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            pixels = torch.stack([read_image(file, SIZE) for file in part])
            images = from_array("files", pixels, torch.zeros(len(part)), ())
            for file, prediction in zip(part, guard(images, CPU), strict=True):
                lines.write(encode_json(row_of(str(file), prediction)) + b"\n")


def child(program: str, guard_folder: str, folder: str) -> None:
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
            loop(guard, Path(folder), Path(room) / "out.jsonl")
        else:
            score_to(Path(room) / f"out.{program}", [folder], guard, CPU)
        seconds = time.perf_counter() - began
    done.set()
    print(json.dumps([seconds, (largest[0] - start) / 2**20]))


def measured(program: str, guard: Path, folder: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, program, str(guard), str(folder)]
    seconds, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, peak


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        new_guard().save(room / "guard")
        for n in (FEW, MANY):
            (room / str(n)).mkdir()
            draw(room / str(n), n)
        programs, rates, peaks = ("loop", "parquet", "jsonl"), {}, {}
        for _ in range(ROUNDS):
            for program in programs:
                seconds, peak = measured(program, room / "guard", room / str(FEW))
                rates.setdefault(program, []).append(FEW / seconds)
                peaks.setdefault(program, []).append(peak)
        print(f"| program | images/s | memory, MiB, at {FEW:,} | at {MANY:,} |\n|---|---|---|---|")
        for program in programs:
            _, most = measured(program, room / "guard", room / str(MANY))
            print(f"| {program} | {median(rates[program]):.0f} | {median(peaks[program]):.0f} | {most:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:]:
        child(*sys.argv[1:])
    else:
        main()
