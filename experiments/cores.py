"""What two cores do, by threads that share each operation and by programs at once: pictures and
reconstructions a second, and the time of a training step. Prints a table; meant for an idle machine.

    python experiments/cores.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

ROWS = (
    ("one thread", 1, "0", 1),
    ("two threads, asleep while they wait", 2, "0", 1),
    ("two threads, spinning", 2, "", 1),
    ("two programs of one thread", 1, "0", 2),
    ("two programs of two threads, asleep while they wait", 2, "0", 2),
    ("two programs of two threads, spinning a little", 2, "10000", 2),
)
"""what is done, threads, turns that they spin (empty: as PyTorch does), and how many programs at once"""


def measured() -> None:
    """In a process of its own: prints pictures and reconstructions a second, and milliseconds of a step."""
    from oodream.models.factory import backbone
    from oodream.synthesis.decoders.stable import StableDecoder

    decoder = StableDecoder(names=["coat"], size=32)
    decoder.at_once = 1  # tiles one after the other
    y, seeds = torch.zeros(64, dtype=torch.long), torch.arange(64)
    z, images = decoder.book.tokens_CD[y], torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8)
    network, labels = backbone("resnet8", 8).train(), torch.arange(128) % 8
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images[:128]).logits_BC
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    decoder(z[:16], y[:16], seeds[:16])
    began = time.monotonic()
    decoder(z, y, seeds)
    drawn = time.monotonic()
    decoder.reconstruct(images)
    rebuilt = time.monotonic()
    for _ in range(20):
        step()
    ended = time.monotonic()
    print(f"{64 / (drawn - began):.1f} {512 / (rebuilt - drawn):.0f} {50 * (ended - rebuilt):.0f}")


def main() -> None:
    print("| | drawn a second | reconstructed a second | ms a training step |\n|---|---|---|---|")
    for what, threads, spins, programs in ROWS:
        own = {"OMP_NUM_THREADS": str(threads)} | ({"GOMP_SPINCOUNT": spins} if spins else {})
        command = [sys.executable, __file__, "measured"]
        started = [
            subprocess.Popen(
                command, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            for _ in range(programs)
        ]
        results = [process.communicate()[0].split() for process in started]
        print(
            f"| {what} | {' | '.join(', '.join(column) for column in zip(*results, strict=True))} |",
            flush=True,
        )


measured() if sys.argv[1:] == ["measured"] else main()
