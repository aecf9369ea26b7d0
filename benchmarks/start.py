"""How long a start takes: `oodream --help`, a wrong option, and the import of what the README imports.

Each is a process of its own, beside the interpreter alone and beside PyTorch's import. Times are the
processor's.

python benchmarks/start.py
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from _bench import Row, Setting, alone, turns

__all__ = ["LINES"]

PROGRAMS = {
    "interpreter": ["-c", "pass"],
    "torch": ["-c", "import torch"],
    "help": ["-m", "oodream", "--help"],
    "command": ["-m", "oodream", "run", "--help"],
    "import": ["-c", "import oodream"],
    "guard": ["-c", "from oodream import Guard"],
}


def starting(setting: Setting) -> Iterator[Row]:
    def run(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    works = {name: partial(run, arguments) for name, arguments in PROGRAMS.items()}
    for work in works.values():
        work()  # files are read, bytecode is written
    times = turns(works, setting.pick(9, 9, 1), torch.device("cpu"))
    for name, what, reference, floor in (
        ("help", "`oodream --help`", "interpreter", "the interpreter alone"),
        ("command", "`oodream run --help`", "interpreter", "the interpreter alone"),
        ("import", "`import oodream`", "interpreter", "the interpreter alone"),
        ("guard", "`from oodream import Guard`", "torch", "`import torch`"),
    ):
        ratio = times[reference] / times[name]
        yield Row(
            what=what, value=1000 * times[name], unit="ms", reference=floor, ratio=ratio,
            floor=f"{floor}, {1000 * times[reference]:.0f} ms", share=ratio,
        )  # fmt: skip


LINES = {"starting": starting}

if __name__ == "__main__":
    alone(LINES)
