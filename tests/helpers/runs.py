"""The command of a small whole run, and what it leaves."""

from __future__ import annotations

from pathlib import Path

RUN = (
    "--decode.steps 2 --decode.tile 4 --sample.per-class 8 --sample.options candidates=20 anchors=5 "
    "--align.optimisation.epochs 2 --align.optimisation.batch 16 --train.optimisation.epochs 2 "
    "--train.optimisation.batch 16 --align.optimisation.min-steps 0 --train.optimisation.min-steps 0 "
    "--evaluate.n-far 30 "
    "--shift.n-corrupted 12 "
    "--report.features 4 --report.samples-per-class 1 --report.strips 1 "
    "--evaluate.resamples 20 --evaluate.detectors energy msp "
    "max_logit mahalanobis --device cpu"
).split()


def command(shapes: Path, decoder: Path, run: Path, *more: str) -> list[str]:
    return ["run", "--data", str(shapes), "--run", str(run), "--decode.source", str(decoder), *RUN, *more]


def plain(text: str) -> str:
    """A message as one line, without the box that the parser draws around it."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "│─╭╮╰╯"), " ")).split())


def images_of(run: Path) -> dict[str, bytes]:
    folder = run / "images" / "imagined"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}
