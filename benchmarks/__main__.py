"""All benchmarks that the page docs/performance.md shows, or those whose lines are named, in one run.

python benchmarks
python benchmarks sampling training --out bench
python benchmarks training-224 files-224 sampling evaluation --device cuda --out bench
python benchmarks --out bench --page docs/performance.md
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from _bench import Line, parser, run
from _page import written

__all__ = ["FILES", "PAGE", "lines"]

FILES = {
    "sampling": "sample",
    "alignment": "train",
    "training": "train",
    "training-224": "train_large",
    "files-224": "train_large",
    "drawing": "decode",
    "reconstruction": "reconstruct",
    "evaluation": "evaluate",
    "metrics": "metrics",
    "report": "report",
    "audit": "report",
    "starting": "start",
    "memory": "memory",
    "deployed": "deploy",
    "scoring": "score",
    "serving": "serve",
    "ways": "ways",
}
"""by the name of each line the file that measures it"""
GPU = ("training-224", "files-224")
"""lines that a CPU has no rows for"""
ELSEWHERE = ("deployed", "scoring", "serving", "ways")
"""lines whose figures are on another page; they are measured where they are named"""
PAGE = tuple(name for name in FILES if name not in (*GPU, *ELSEWHERE))


def lines(names: list[str]) -> dict[str, Line]:
    """The lines of these names; their files alone are imported."""
    if unknown := [name for name in names if name not in FILES]:
        raise SystemExit(f"There is no line {unknown[0]!r}. There are: {', '.join(FILES)}.")
    return {name: import_module(FILES[name]).LINES[name] for name in names}


def main() -> None:
    options = parser()
    options.add_argument("--page", type=Path, help="a page whose table is written anew")
    arguments = options.parse_args()
    arguments.lines = arguments.lines or list(PAGE)
    rows, machine = run(lines(arguments.lines), arguments)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        device = arguments.device.partition(":")[0]
        arguments.page.write_text(written(text, device, machine, rows, FILES), encoding="utf-8")


if __name__ == "__main__":
    main()
