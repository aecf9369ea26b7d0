"""`oodream score` and `export`."""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..core.errors import StoreError, listed, shown
from ..core.files import encode_json
from ..core.options import ConfigError
from ..core.storage import is_url
from .console import Engine, absolute, looked_at, parse, writing_to

if TYPE_CHECKING:
    from ..deploy.guard import Guard
    from ..deploy.resumed import Tally
    from ..deploy.scoring import Answerer
    from ..models.classifier import Classifier
    from ..runtime.guard import Guard as GraphGuard

__all__ = ["export", "score"]


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Say of each image which class it shows, or that it is unknown."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """image files, folders of them, in buckets, too (s3://BUCKET/FOLDER), text files (.txt, .lst) with a path
    or URL a line, or hub:NAME, a data set of the hub
    """
    run: str
    """a run's folder, a classifier's (RUN/classifier/NAME), or an exported guard's, or one of these in a
    bucket; or a graph's file, such as guard.onnx, which is asked without PyTorch, as a folder's is where
    PyTorch is not installed
    """
    classifier: str = "regularized-s0"
    """which of the run's classifiers"""
    alpha: float | None = None
    """share of known images that may be flagged, in place of the guard's own"""
    out: str = ""
    """file to write, here or in a bucket: results.parquet, results.csv, or JSON lines in results.jsonl, a row
    for each image in order; after a kill the same command goes on
    """
    json: bool = False
    """print one JSON object for each image"""
    engine: Engine = "here"
    """here, or ray, with --out: the workers of a cluster of Ray share the work; RAY_ADDRESS names one"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A guard as a folder that works by itself, for `Guard.load` or the Hugging Face hub; and the
    images that a run imagined as a data set.
    """

    run: Annotated[str, tyro.conf.Positional]
    """a run's folder, or what `oodream guard` wrote, here or in a bucket"""
    out: str = ""
    """folder to write the guard to, or one in a bucket; it is new or empty, or here, and holds what this
    command has written and would write again
    """
    outliers: str = ""
    """folder to write the imagined images to, with a card, or one in a bucket; it is new or empty"""
    license: str = ""
    """licence on the cards, an identifier of the hub's such as cc-by-4.0"""
    onnx: bool = False
    """with an ONNX graph, from pixels to answers, which is compared with the guard"""
    openvino: bool = False
    """with the graph in OpenVINO's format, too, which is compared as well"""
    int8: bool = False
    """with the graph in 8-bit integers, too, and a threshold of its own; reads the images that the guard was
    made of, and says on the model card what it costs"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""


def score(args: Sequence[str]) -> int:
    """`oodream score`: 0 when every image was read."""
    chosen = parse(ScoreOptions, "oodream score", args)

    from ..deploy.resumed import score_to
    from ..deploy.tables import BESIDE, table_for

    if not chosen.out:
        if chosen.engine == "ray":
            raise ConfigError("--engine ray writes a file: give --out results.parquet, .csv or .jsonl.")
        return _print_scores(_predictor(chosen), chosen)
    if chosen.json:
        raise ConfigError("--json prints, and --out writes: leave --json out; results.jsonl holds JSON, too.")
    table_for(Path(chosen.out))
    with writing_to(chosen.out, beside=BESIDE) as out:
        predictor = _predictor(chosen)
        goes_to = chosen.out if is_url(chosen.out) else ""
        write = partial(score_to, out, chosen.images, predictor, goes_to=goes_to)
        tally = write() if chosen.engine == "here" else _on_cluster(write, predictor, chosen)
    if tally.unread:
        unread = listed(tally.first_unread, "\n  ")
        print(f"oodream: {tally.not_read}:\n  {unread}", file=sys.stderr)
        _say_lists(chosen.images)
    print(f"{shown(chosen.out)}: {tally}")
    return 2 if tally.unread else 0


def _on_cluster(
    write: Callable[..., Tally], predictor: Guard | GraphGuard | Classifier, chosen: ScoreOptions
) -> Tally:
    """The workers of a cluster answer; ConfigError for a guard on a graph, which no worker can be sent."""
    from ..core.cluster import Cluster
    from ..deploy.on_cluster import answering_on
    from ..runtime.guard import Guard as GraphGuard

    if isinstance(predictor, GraphGuard):
        raise ConfigError("--engine ray takes a guard's folder, and PyTorch, but no graph's file.")
    with Cluster(chosen.device) as cluster:
        return write(answering=answering_on(cluster, predictor, chosen.device, chosen.plugins))


def _predictor(chosen: ScoreOptions) -> Guard | GraphGuard | Classifier:
    """What answers, at the alpha that is asked for."""
    from ..deploy.loading import load_graph
    from ..runtime.answering import Answering
    from ..runtime.graph import runs_on_graph

    place = looked_at(chosen.run, "guard/", f"classifier/{chosen.classifier}/")
    on_graph = runs_on_graph(str(place))
    predictor = load_graph(str(place), chosen.device) if on_graph else _in_pytorch(place, chosen)
    if isinstance(predictor, Answering):
        return predictor if chosen.alpha is None else predictor.at(chosen.alpha)
    if chosen.alpha is not None:
        raise StoreError(f"--alpha moves a guard's threshold, and {shown(chosen.run)} holds no guard of it.")
    print(
        "  note: no guard, no guarantee: 95 % of known test images lie below the threshold", file=sys.stderr
    )
    return predictor


def _in_pytorch(place: Path, chosen: ScoreOptions) -> Guard | Classifier:
    """The guard or the classifier of a folder, on its device."""
    from ..core.device import device_of
    from ..deploy.guard import predictor_of
    from ..run.folder import RunDir, read_manifest

    if manifest := read_manifest(place):
        folder, stage = RunDir(place), f"classifier/{chosen.classifier}"
        if stage in manifest.get("stages", ()) and not folder.stamp(stage):
            raise StoreError(
                f"{shown(chosen.run)} is not finished: its {stage} is not trained yet. "
                f"It goes on with: {_to_the_end(manifest.get('command', 'oodream run …'))}"
            )
        for name in ("guard", stage):
            folder.check_whole(name)
    predictor, device = predictor_of(place, chosen.classifier, chosen.plugins), device_of(chosen.device)
    predictor.network.to(device)
    return predictor


def _to_the_end(command: str) -> str:
    """A run's command, without the stage at which it was to end."""
    return re.sub(r" --until[= ]\S+", "", command)


def _print_scores(predictor: Answerer, chosen: ScoreOptions) -> int:
    """Prints a line for each picture."""
    from ..data.stream import open_pictures
    from ..deploy.scoring import answers
    from ..runtime.answers import compared

    unread = 0
    with tempfile.TemporaryDirectory() as folder:
        pictures = open_pictures(chosen.images, Path(folder) / "pictures.txt")
        for name, answer in answers(predictor, pictures.read()):
            if isinstance(answer, str):
                print(f"oodream: {shown(name)} cannot be read: {answer}", file=sys.stderr)
                unread += 1
            elif chosen.json:
                print(encode_json({"file": name, **dataclasses.asdict(answer)}).decode())
            else:
                score, limit = compared(answer.score, answer.threshold, decimals=3)
                print(f"{answer.answer:20} score {score:>9}, threshold {limit:>9}   {shown(name)}")
    if unread:
        _say_lists(chosen.images)
    return 2 if unread else 0


def _say_lists(places: Sequence[str]) -> None:
    """Says which of the places were read as lists of pictures, for where some cannot be read."""
    from ..data.stream import is_list

    if lists := [shown(place) for place in places if is_list(place)]:
        print(
            f"oodream: read as lists, with the path or URL of a picture in each line: {listed(lists)}",
            file=sys.stderr,
        )


def export(args: Sequence[str]) -> int:
    """`oodream export`."""
    chosen = parse(ExportOptions, "oodream export", args)

    from ..deploy.stored import CONFIG_FILE
    from ..run.artifacts import Run
    from ..run.outliers import INDEX, export_images

    if not chosen.out and not chosen.outliers:
        raise ConfigError(
            "What shall be written? Give --out FOLDER for the guard, --outliers FOLDER, or both."
        )
    place = looked_at(chosen.run)
    if chosen.out:
        with writing_to(chosen.out, last=CONFIG_FILE) as out:
            lines = _export_guard(chosen, place, out)
        print("\n".join([f"{absolute(chosen.out)}: {lines[0]}", *lines[1:]]))
    if chosen.outliers:
        run = Run.open(place, chosen.plugins)
        with writing_to(chosen.outliers, last=INDEX) as out:
            n = export_images(run, out, **({"license": chosen.license} if chosen.license else {}))
        print(f"{absolute(chosen.outliers)}: {n:,} imagined images, with a card")
    return 0


def _export_guard(chosen: ExportOptions, place: Path, out: Path) -> list[str]:
    """Writes the folder of the guard at a place; lines that say what it promises, and what its graphs differ
    in.
    """
    from ..deploy.export import export, is_exported
    from ..deploy.guard import Guard
    from ..deploy.stored import CONFIG_FILE, INT8_FILE
    from ..run.artifacts import Run
    from ..run.folder import read_manifest
    from ..run.guard_images import images_of, images_of_run
    from ..run.guards import measurements

    guard = Guard.load(place, plugins=chosen.plugins)
    run = Run.open(place, chosen.plugins) if read_manifest(place) else None
    measured = measurements(run or place)
    asked: dict[str, Any] = {
        "onnx": chosen.onnx, "openvino": chosen.openvino, "license": chosen.license or None
    }  # fmt: skip
    if (out / CONFIG_FILE).is_file():
        if is_exported(guard, out, measured, int8=chosen.int8, **asked):
            return [f"there already, {guard.guarantee}"]
        raise StoreError(
            f"{shown(out)} holds another model, or this guard as it was before, or exported with other "
            "options. Choose another --out, or remove it."
        )
    images = None
    if chosen.int8:
        images = images_of_run(run) if run else images_of(place, guard)
    exported = export(guard, out, measured, int8=images, **asked)
    lines = [str(guard.guarantee)]
    for name, worst in (("guard.onnx", exported.onnx), ("guard.xml", exported.openvino)):
        if worst is not None:
            lines.append(f"{name} gives the same answers; its scores differ by {worst:.2g} at most")
    if exported.int8:
        lines.append(f"{INT8_FILE}: {exported.int8.guarantee}")
        for change in exported.int8.changes:
            lines.append(f"  {change.measure}: {change.before:.2%}, in integers {change.after:.2%}")
    return lines
