"""cli.deploy."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Score:
    """Say of each image which class it is, or that it is unknown."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """image files, or folders of them"""
    run: Path
    """a run's folder, a classifier's (RUN/classifier/NAME), or an exported guard's"""
    classifier: str = "dream-s0"
    """which of the run's classifiers"""
    json: bool = False
    """one JSON object for each image"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def score(args: Sequence[str]) -> int:
    """`oodream score`: 0 when every image was read."""
    chosen = tyro.cli(Score, prog="oodream score", args=list(args))

    from ..core.device import device_of
    from ..data.preprocess import image_files
    from ..deploy.guard import predictor_of
    from ..models.classifier import predict_files

    loaded, device = predictor_of(chosen.run, chosen.classifier, chosen.plugins), device_of(chosen.device)
    loaded.network.to(device)
    files = [file for path in chosen.images for file in (image_files(path) if path.is_dir() else [path])]
    unread = 0
    for file, verdict in predict_files(loaded, files, device):
        if isinstance(verdict, str):
            print(f"oodream: {file} cannot be read: {verdict}", file=sys.stderr)
            unread += 1
        elif chosen.json:
            print(json.dumps({"file": str(file), **dataclasses.asdict(verdict)}, ensure_ascii=False))
        else:
            print(
                f"{verdict.answer:20} score {verdict.score:9.3f}, threshold {verdict.threshold:9.3f}   {file}"
            )
    return 2 if unread else 0


@dataclass(frozen=True, kw_only=True)
class Export:
    """A run's guard as a folder that works by itself, for `Guard.load` or the Hugging Face hub."""

    run: Annotated[Path, tyro.conf.Positional]
    """a run's folder"""
    out: Path
    """folder to write; it is new or empty"""
    onnx: bool = False
    """with an ONNX graph, from pixels to answers, which is compared with the guard"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""


def export_guard(args: Sequence[str]) -> int:
    """`oodream export`."""
    chosen = tyro.cli(Export, prog="oodream export", args=list(args))

    from ..core.results import row_from_json
    from ..deploy.export import export
    from ..deploy.guard import Guard
    from ..run.folder import RunDir
    from ..run.pipeline import DREAM

    guard, results = Guard.load(chosen.run, plugins=chosen.plugins), chosen.run / "results.jsonl"
    rows = (
        [row_from_json(line) for line in results.read_text(encoding="utf-8").splitlines()]
        if results.is_file()
        else []
    )
    if stamp := RunDir(chosen.run).stamp("guard"):
        rows = [
            row
            for row in rows
            if (row.classifier, row.seed, row.detector) == (DREAM, 0, stamp["inputs"]["detector"])
        ]
    worst = export(guard, chosen.out, rows, chosen.onnx)
    print(f"{chosen.out.resolve()}: {guard.promise}")
    if worst is not None:
        print(f"guard.onnx gives the same answers; its scores differ by {worst:.2g} at most")
    return 0
