"""All benchmarks, or those whose lines are named.

python benchmarks
python benchmarks sampling training --device cuda --out bench
"""

from __future__ import annotations

import evaluate
import sample
import train
from _bench import Line, parser, run

__all__ = ["LINES"]

FILES = (train, sample, evaluate)
LINES: dict[str, Line] = {name: line for file in FILES for name, line in file.LINES.items()}

if __name__ == "__main__":
    run(LINES, parser().parse_args())
