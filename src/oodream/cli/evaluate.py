"""The commands `evaluate`, a network on a published protocol, and `audit`, what makes such numbers wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..config import Config, MeasureConfig
from ..core.errors import listed, shown
from ..core.files import encode_json
from ..core.options import ConfigError
from ..run.layout import REGULARIZED, Layout
from .console import Engine, absolute, looked_at, parse, say, writing_to

if TYPE_CHECKING:
    from ..benchmark.locate import Rooted
    from ..benchmark.own import OwnImages
    from ..run.artifacts import Run

__all__ = ["audit", "evaluate"]

CLASSIFIERS = "classifier/"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which network, on which images."""

    protocol: str = ""
    """name of a protocol (see `oodream list`), or a TOML file of your own"""
    data: str = ""
    """in place of a protocol your own images: a folder of class folders, hub:NAME, or a data set by name; a
    run's classifier has the run's, unless others are given
    """
    ood: tuple[str, ...] = ()
    """folders of unknown images beside these (near=FOLDER: like the classes)"""
    shifted: tuple[str, ...] = ()
    """folders whose class folders show the known classes otherwise, for --full-spectrum"""
    unknown: tuple[str, ...] = ()
    """classes of --data that are unknown"""
    classes: str = ""
    """class list of --data: imagenet100, cifar100, cifar10 or a TOML file"""
    model: str = ""
    """folder of a run (its first regularized classifier) or of a classifier, here or in a bucket; a network's
    file: ONNX, a program of torch.export.save, or TorchScript; its name: timm:NAME or hf:NAME with published
    weights, any other with --weights; or with --plugins package.module:factory
    """
    root: tuple[Path, ...] = ()
    """folders that hold the images and lists; no file outside them is read (default: the folder of your
    protocol file); for a data set by name, the folder that it is in
    """
    weights: Path | None = None
    """safetensors file with the network's weights"""
    out: str = ""
    """folder to write, or one in a bucket (default: runs/evaluate-PROTOCOL-MODEL); the network's outputs are
    kept for the next time, in it or on this machine
    """
    hub: bool = False
    """read image sets from the hub that are there and not below a root"""
    engine: Engine = "here"
    """here, or ray: the network runs on the workers of a cluster of Ray; RAY_ADDRESS names one"""
    plugins: bool = False
    """allow a network that a Python module makes, or a classifier with a loss of one; its code is run"""
    dry_run: bool = False
    """print which image sets are there, which are missing and where to get them; check the classes of a
    network in a folder, and stop
    """


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a network on a protocol, or on your images: AUROC, FPR95 and accuracy, with intervals, for each
    image set.
    """

    where: Annotated[Target, tyro.conf.arg(name="")]
    options: Annotated[MeasureConfig, tyro.conf.arg(name="")] = field(default_factory=MeasureConfig)


def evaluate(args: Sequence[str]) -> int:
    """`oodream evaluate`."""
    command = parse(Evaluate, "oodream evaluate", args)
    target = command.where

    from ..benchmark.explain import overview
    from ..benchmark.run import FACTS

    origin = _origin(target, command.options.seed)
    if target.dry_run:
        print(overview(origin, command.options.full_spectrum))
        _check_classes(target, origin)
        return 0
    if not target.model:
        raise ConfigError(
            "Which network? Give --model: the folder of a run or a classifier, or a name such as "
            "timm:resnet50.a1_in1k."
        )
    model = _classifier_of(target.model)
    label = "-".join(re.findall(r"[\w.]+", target.model))
    place = target.out or str(Path("runs") / f"evaluate-{origin.protocol.name}-{label}")
    with writing_to(place, last=FACTS, again=True) as out:
        if (out / FACTS).is_file():
            print(f"  note: {shown(out)} holds results already, which are replaced", file=sys.stderr)
        tables = _measured(command, origin, model, out)
    print(f"\n{tables}\nResults: {absolute(place)}")
    return 0


def _origin(target: Target, seed: int) -> Rooted | OwnImages:
    """The images to measure on: a protocol's, the user's, which `seed` splits where they are not split, or
    those of the run whose classifier is measured.
    """
    from ..benchmark.locate import Rooted
    from ..benchmark.own import OwnImages
    from ..benchmark.protocol import load_protocol

    names = ("data", "ood", "shifted", "unknown", "classes")
    own = {name: given for name in names if (given := getattr(target, name))}
    if target.protocol and own:
        raise ConfigError(f"A protocol has its own images: leave --{next(iter(own))}, or --protocol.")
    if target.protocol:
        ours = (Path(target.protocol).parent,) if target.protocol.endswith(".toml") else ()
        return Rooted(protocol=load_protocol(target.protocol), roots=target.root or ours, hub=target.hub)
    if target.data:
        return OwnImages(Config(**own, root=str(target.root[0]) if target.root else "", seed=seed))
    if (run := _run_of(target)) is None:
        raise ConfigError(
            "Which images? Give --protocol NAME (see `oodream list`), or --data FOLDER and --ood "
            "near=FOLDER. A run's classifier has those of the run."
        )
    if run.config.validate:
        raise ConfigError(
            f"{target.model} has left classes out to choose on (--validate), and is measured on no test "
            "image. Give --data FOLDER."
        )
    return OwnImages(replace(run.config, **own))


def _run_of(target: Target) -> Run | None:
    """The run that the network is, or is a classifier of; StoreError for a folder that is not there."""
    from ..core.folders import check_is_there
    from ..run.artifacts import Run

    place = looked_at(target.model, CLASSIFIERS) if target.model else Path()
    folders = (place, *place.parents[1:2])  # RUN, RUN/classifier/NAME
    folder = next((folder for folder in folders if target.model and Layout(folder).manifest.is_file()), None)
    if folder is None and "/" in target.model and ":" not in target.model:
        check_is_there(place)
    return Run.open(folder, target.plugins) if folder else None


def _check_classes(target: Target, origin: Rooted | OwnImages) -> None:
    """ValueError where a network on this machine has other classes than the images."""
    from ..benchmark.model import class_order, open_model
    from ..models.opened import Said

    protocol = origin.locate(()).protocol
    if protocol.classes and target.model and looked_at(target.model, CLASSIFIERS).is_dir():
        model = _classifier_of(target.model)
        class_order(open_model(model, target.weights, protocol, Said(), target.plugins), protocol)


def _measured(command: Evaluate, origin: Rooted | OwnImages, model: str, out: Path) -> str:
    """The tables, measured by this process or by a cluster's workers."""
    from ..benchmark.run import Job, run_benchmark
    from ..run.lessons import lesson_of, run_of

    target, options = command.where, vars(command.options)
    here = {name: str(looked_at(options[name])) for name in ("tune", "outliers") if options[name]}
    job = Job(out=out, plugins=target.plugins, **{**options, **here})
    run = run_of(Path(job.outliers), target.plugins) if job.outliers else None
    teach = partial(lesson_of, run) if run else None
    measure = partial(run_benchmark, origin, model, target.weights, job, say, teach)
    if target.engine == "here":
        return measure()

    from ..core.cluster import Cluster
    from ..models.on_cluster import outputs_on

    with Cluster(job.device) as cluster:
        return measure(outputs_on(cluster))


def _classifier_of(model: str) -> str:
    """The first regularized classifier where `model` is a run's folder; else `model` itself.

    Raises ConfigError for a run without one.
    """
    run = Layout(looked_at(model, CLASSIFIERS))
    if not run.manifest.is_file():
        return str(run.folder)
    classifier = run.classifier(REGULARIZED, 0)
    if not classifier.is_dir():
        others = sorted(classifier.parent.glob("*"))
        raise ConfigError(
            f"The run {model} has no regularized classifier yet. Finish it, or name the folder of one of "
            f"its classifiers: {listed(map(str, others)) or 'there is none so far'}."
        )
    return str(classifier)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Look for what makes OOD numbers wrong: duplicates, file traces, known classes in OOD sets.

    The exit code is 1 where there is a problem, and 0 where there are warnings at most.
    """

    run: Annotated[str, tyro.conf.Positional] = ""
    """folder of a run, finished or begun, here or in a bucket; without one, give --data and --ood"""
    data: str = ""
    """folder of class folders, hub:NAME, or a data set by name, as for `oodream run` """
    root: str = ""
    """folder that a data set chosen by name is read from"""
    unknown: tuple[str, ...] = ()
    """classes of the data that are unknown"""
    ood: tuple[str, ...] = ()
    """folders of OOD test images (near=FOLDER: like the classes)"""
    shifted: tuple[str, ...] = ()
    """folders whose class folders show known classes otherwise"""
    classes: str = ""
    """class list: imagenet100, cifar100, cifar10 or a TOML file"""
    size: int = 32
    """width and height at which images are compared, in pixels"""
    seed: int = 0
    """of the samples, and of the split into training and test images where the data has none"""
    plugins: bool = False
    """allow extensions that a run names by their module, whose code then runs"""
    json: bool = False
    """print JSON"""


def audit(args: Sequence[str]) -> int:
    """`oodream audit`."""
    command = parse(Audit, "oodream audit", args)
    if bool(command.run) == bool(command.data):
        both = "A run has its own images: leave --data, or the run. " if command.run else ""
        raise ConfigError(f"{both}Audit what? Name a run's folder, or give --data FOLDER and --ood FOLDER.")

    from ..run.artifacts import Run
    from ..run.audit import audit_folders, audit_run, lines

    if command.run:
        run = Run.open(looked_at(command.run), command.plugins)
        for stage in run.folder.stamps():
            run.folder.check_whole(stage)
        result = audit_run(run)
    else:
        names = ("data", "root", "unknown", "ood", "shifted", "classes", "size", "seed")
        result = audit_folders(Config(**{name: getattr(command, name) for name in names}))
    if command.json:
        print(encode_json(result.to_json(), indent=2).decode())
    else:
        print("\n".join(lines(result)))
    return 1 if result["problem"] else 0
