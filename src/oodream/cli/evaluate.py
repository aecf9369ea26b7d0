"""cli.evaluate."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..config import Config, MeasureConfig
from ..core.options import ConfigError
from .console import say
from .run import _joined


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Which network, on which protocol."""

    protocol: str
    """a protocol by name (see `oodream list`), or a TOML file of your own"""
    model: str = ""
    """a classifier's folder, or a network by name: timm:NAME or hf:NAME with published weights, others with
    --weights
    """
    root: tuple[Path, ...] = ()
    """folders that hold the images and lists; no other file is read (default: a protocol file's own folder)"""
    weights: Path | None = None
    """a safetensors file of the network's weights"""
    out: Path | None = None
    """folder to write (default: runs/evaluate-PROTOCOL-MODEL); the network's outputs are kept there for the
    next time
    """
    hub: bool = False
    """take what is not below a root, but on the hub, from there"""
    plugins: bool = False
    """allow a classifier whose loss is named by its module, whose code then runs"""
    dry_run: bool = False
    """print what is there, what is missing and where to get it, and stop"""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """A network on a protocol: AUROC, FPR95 and accuracy, with intervals, for every set."""

    where: Annotated[Measured, tyro.conf.arg(name="")]
    options: Annotated[MeasureConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=MeasureConfig
    )


def evaluate(args: Sequence[str]) -> int:
    """`oodream evaluate`."""
    found = tyro.cli(Evaluate, prog="oodream evaluate", args=_joined(args))
    chosen, options = found.where, found.options

    from ..benchmark import protocol as protocols
    from ..benchmark import run as benchmarking

    benchmark = protocols.load(chosen.protocol)
    own = (Path(chosen.protocol).parent,) if chosen.protocol.endswith(".toml") else ()
    roots = chosen.root or own
    if chosen.dry_run:
        print(benchmarking.overview(benchmark, roots, chosen.hub))
        return 0
    if not chosen.model:
        raise ConfigError(
            "Which network? Give --model: a classifier's folder, or a name such as timm:resnet50.a1_in1k."
        )
    model = "-".join(re.findall(r"[\w.]+", chosen.model))
    out = chosen.out or Path("runs") / f"evaluate-{benchmark.name}-{model}"
    job = benchmarking.Job(out=out, roots=roots, hub=chosen.hub, plugins=chosen.plugins, **vars(options))
    print(
        f"\n{benchmarking.measure(benchmark, chosen.model, chosen.weights, job, say)}\nResults: {out.resolve()}"
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Look for what makes OOD numbers lie. The exit code is 0 without a problem (there may be warnings), and
    1 with one.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """a run's folder, finished or begun; or, without a run, --data and --ood"""
    data: str = ""
    """what `oodream run` takes: a folder of class folders, hub:NAME, "fashion" or "fashion-full" """
    ood: tuple[str, ...] = ()
    """folders of OOD test images (near=FOLDER: like the classes)"""
    classes: str = ""
    """class list: imagenet100, cifar100, cifar10 or a TOML file"""
    size: int = 32
    """width and height at which images are compared, in pixels"""
    seed: int = 0
    """of the split into training and test images, where there is none, and of samples"""
    json: bool = False
    """print JSON"""


def audit(args: Sequence[str]) -> int:
    """`oodream audit`."""
    chosen = tyro.cli(Audit, prog="oodream audit", args=_joined(args))
    if bool(chosen.run) == bool(chosen.data):
        raise ConfigError("Audit what? Name a run's folder, or give --data FOLDER and --ood FOLDER.")

    from ..audit.finding import to_json as findings
    from ..run import audit as auditing

    given = Config(
        data=chosen.data, ood=chosen.ood, classes=chosen.classes, size=chosen.size, seed=chosen.seed
    )
    done = auditing.of_run(chosen.run) if chosen.run else auditing.of_folders(given)
    for line in (
        [json.dumps(findings(done), indent=2, ensure_ascii=False)] if chosen.json else auditing.lines(done)
    ):
        print(line)
    return 1 if done["problem"] else 0
