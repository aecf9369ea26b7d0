"""`oodream score` and `export`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .console import parse

__all__ = ["export", "score"]


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Say of each image which class it shows, or that it is unknown."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """image files, or folders of them"""
    run: Path
    """a run's folder, a classifier's (RUN/classifier/NAME), or an exported guard's"""
    classifier: str = "regularized-s0"
    """which of the run's classifiers"""
    alpha: float | None = None
    """share of known images that may be flagged, in place of the guard's own"""
    json: bool = False
    """one JSON object for each image"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A run's guard as a folder that works by itself, for `Guard.load` or the Hugging Face hub."""

    run: Annotated[Path, tyro.conf.Positional]
    """a run's folder"""
    out: Path
    """folder to write; it is new or empty"""
    onnx: bool = False
    """with an ONNX graph, from pixels to answers, which is compared with the guard"""
    openvino: bool = False
    """with the graph in OpenVINO's format, too, which is compared as well"""
    int8: bool = False
    """with the graph in 8-bit integers, too, and a threshold of its own; reads the run's images, and says on
    the model card what it costs"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""


def score(args: Sequence[str]) -> int:
    """`oodream score`: 0 when every image was read."""
    chosen = parse(ScoreOptions, "oodream score", args)

    from ..core.device import device_of
    from ..core.errors import StoreError, shown
    from ..core.files import encode_json
    from ..data.scan import collect, explain
    from ..deploy.guard import Guard, predictor_of
    from ..models.classifier import predict_files
    from ..run.folder import RunDir, read_manifest

    if read_manifest(chosen.run):
        folder = RunDir(chosen.run)
        for stage in ("guard", f"classifier/{chosen.classifier}"):
            folder.check_whole(stage)
    found = collect(chosen.images)
    if found.unread:
        print(f"oodream: {explain(found)}", file=sys.stderr)
    predictor, device = predictor_of(chosen.run, chosen.classifier, chosen.plugins), device_of(chosen.device)
    predictor.network.to(device)
    if chosen.alpha is not None:
        if not isinstance(predictor, Guard):
            raise StoreError(
                f"--alpha moves a guard's threshold, and {shown(chosen.run)} holds no guard of it."
            )
        predictor = predictor.at(chosen.alpha)
    if not isinstance(predictor, Guard):
        print(
            "  note: no guard, no guarantee: 95 % of known test images lie below the threshold",
            file=sys.stderr,
        )
    unread = found.pictures
    for file, prediction in predict_files(predictor, found.files, device):
        if isinstance(prediction, str):
            print(f"oodream: {shown(file)} cannot be read: {prediction}", file=sys.stderr)
            unread += 1
        elif chosen.json:
            print(encode_json({"file": str(file), **dataclasses.asdict(prediction)}).decode())
        else:
            limit = f"threshold {prediction.threshold:9.3f}"
            print(f"{prediction.answer:20} score {prediction.score:9.3f}, {limit}   {shown(file)}")
    return 2 if unread else 0


def export(args: Sequence[str]) -> int:
    """`oodream export`."""
    chosen = parse(ExportOptions, "oodream export", args)

    from ..core.errors import StoreError, shown
    from ..data.inputs import DataInputs
    from ..deploy.export import export
    from ..deploy.guard import Guard
    from ..deploy.quantize import INT8_FILE, Int8Images
    from ..run.artifacts import Run
    from ..run.folder import read_manifest
    from ..run.layout import REGULARIZED

    guard = Guard.load(chosen.run, plugins=chosen.plugins)
    rows, images = [], None
    if chosen.int8 and not read_manifest(chosen.run):
        raise StoreError(f"--int8 needs a run's images, and {shown(chosen.run)} is no run.")
    if read_manifest(chosen.run):
        run = Run.open(chosen.run, chosen.plugins)
        stamp = run.stamp("guard")
        detector = stamp["inputs"]["detector"] if stamp else ""
        arm = (REGULARIZED, 0, detector)
        if run.stamp("scores"):
            rows = [row for row in run.rows() if (row.classifier, row.seed, row.detector) == arm]
        if chosen.int8:
            inputs = DataInputs(run.config)
            images = Int8Images(train=inputs.train, held_out=inputs.test, ood=inputs.ood)
    exported = export(guard, chosen.out, rows, onnx=chosen.onnx, openvino=chosen.openvino, int8=images)
    print(f"{chosen.out.resolve()}: {guard.guarantee}")
    for name, worst in (("guard.onnx", exported.onnx), ("guard.xml", exported.openvino)):
        if worst is not None:
            print(f"{name} gives the same answers; its scores differ by {worst:.2g} at most")
    if exported.int8:
        print(f"{INT8_FILE}: {exported.int8.guarantee}")
        for change in exported.int8.changes:
            print(f"  {change.measure}: {change.before:.2%}, in integers {change.after:.2%}")
    return 0
