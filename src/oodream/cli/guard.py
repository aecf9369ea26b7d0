"""`oodream guard`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..config import NetworkConfig
from ..core.errors import listed
from ..core.options import ConfigError
from ..core.storage import Storage, check_lasts, is_url, place_here
from .console import absolute, looked_at, parse, say, writing_to

if TYPE_CHECKING:
    from ..core.types import Json
    from ..run.guard_inputs import GuardJob

__all__ = ["GuardOptions", "guard", "job_of", "place_of"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which network, and which images."""

    model: str = ""
    """timm:NAME, hf:NAME or torchvision:NAME with published weights or those of --weights; hf:FOLDER; a
    classifier's folder (RUN/classifier/NAME); an ONNX file, a program of torch.export.save or a TorchScript
    file; with --plugins package.module:factory, which makes a torch.nn.Module
    """
    data: str = ""
    """pictures of what the network knows: a folder of class folders, here or in a bucket, hub:NAME or a data
    set by name, as for `oodream run`; or a folder of pictures without labels
    """
    out: str = ""
    """folder to write, or one in a bucket (default: runs/guard-MODEL); it is new or empty, or this
    command has finished it, of what is still the same
    """
    redo: bool = False
    """make the guard again, in place of the one in the folder, which is replaced as a whole"""
    weights: Path | None = None
    """safetensors file with the network's weights"""
    labels: Path | None = None
    """file that says what the network's outputs are called, one name a line, or a class list in TOML"""
    unlabelled: bool = False
    """the folders that the pictures lie in are no classes"""
    classes: str = ""
    """class list of the data: imagenet100, cifar100, cifar10 or a TOML file; only its classes are read"""
    root: str = ""
    """folder that a data set chosen by name is read from"""
    ood: tuple[str, ...] = ()
    """folders of unknown pictures (near=FOLDER: like the classes); one half chooses the detector, the other
    half is measured on
    """
    outliers: str = ""
    """a run, here or in a bucket, whose imagined outliers teach the detectors that learn from some, or a
    folder of outliers; where
    none of the detectors does, they choose the best one
    """
    any_accuracy: bool = False
    """make a guard even if the accuracy shows that something is wrong"""
    cache: Path | None = None
    """folder that keeps the network's outputs for the next time (default: guard-cache beside the folder to
    write)
    """
    plugins: bool = False
    """allow what is named by its Python module, whose code then runs"""
    dry_run: bool = False
    """check options, images and network, open no picture, say what would be done, and stop"""


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """A guard for the network that you have: it says "unknown" with a guarantee, and the network stays as it
    is.

    Killed or not, the same command goes on where it stopped.
    """

    where: Annotated[Subject, tyro.conf.arg(name="")]
    options: Annotated[NetworkConfig, tyro.conf.arg(name="")] = field(default_factory=NetworkConfig)


def guard(args: Sequence[str]) -> int:
    """`oodream guard`."""
    command = parse(GuardOptions, "oodream guard", args)
    where = command.where
    if not where.model:
        raise ConfigError(
            "Which network? Give --model: a name such as timm:resnet50.a1_in1k, or the file of an ONNX or "
            "exported network."
        )
    if not where.data:
        raise ConfigError("Which pictures? Give --data FOLDER, with what the network knows.")

    from ..deploy.stored import CONFIG_FILE, code_of
    from ..run.guard import check_guard, guard_network
    from ..run.guard_made import check_same
    from ..run.guard_page import REPORT, measured_in_words

    place = place_of(where)
    lines = f"Guard: {absolute(place)}\nReport: {absolute(f'{place}/{REPORT}')}"
    made = _made_at(place)
    if made and not where.redo:
        check_same(made, job_of(command, args, place_here(place, "out")), place)
        print(f"This guard is finished. For another, choose another --out.\n{lines}")
        return 0
    if where.dry_run:
        check_lasts(place)
        check_guard(job_of(command, args, place_here(place, "out")), say)
        print(f"Would make a guard for {where.model} of the pictures in {where.data}, in {place}.")
        return 0
    with writing_to(place, last=CONFIG_FILE, again=made is not None) as out:
        result = guard_network(job_of(command, args, out), say)
    print(f"\n{result.guard.guarantee}")
    for what, measured in measured_in_words(result).items():
        print(f"{what}: {measured}")
    print(lines)
    if code := code_of(result.guard):
        print(
            f"What reads this folder runs code, {listed(code)}: score, serve, export and studio take "
            "--plugins with it, and Guard.load plugins=True."
        )
    return 0


def _line(args: Sequence[str]) -> str:
    """The command line, as a guard's folder keeps it: what makes it, for the first time or another."""
    return shlex.join(["oodream", "guard", *(arg for arg in args if arg not in ("--redo", "--dry-run"))])


def _made_at(place: str) -> Json | None:
    """The facts of the guard that was made at a place, here or in a bucket; None where there is none."""
    from ..run.guard_images import FACTS
    from ..run.guard_made import facts_of
    from ..run.sync import fetched

    there = is_url(place) and Storage(place).listed("")
    return facts_of(fetched(place, FACTS.__eq__) if there else Path(place))


def place_of(where: Subject) -> str:
    """The guard's folder: the one named, or one called as the network."""
    label = "-".join(re.findall(r"[\w.]+", Path(where.model).name or where.model))
    return where.out or str(Path("runs") / f"guard-{label}")


def job_of(command: GuardOptions, args: Sequence[str], out: Path) -> GuardJob:
    """What the options of the command line ask for, in the folder `out`."""
    from ..data.remote import copied
    from ..run.guard import CACHE
    from ..run.guard_inputs import GuardJob

    where = command.where
    named = {key: value for key, value in vars(where).items() if key not in ("out", "cache", "dry_run")}
    named |= {"data": copied(where.data), "root": copied(where.root), "ood": tuple(map(copied, where.ood))}
    if where.outliers:
        named["outliers"] = str(looked_at(where.outliers))
    return GuardJob(
        out=out, cache=where.cache or out.parent / CACHE, command=_line(args),
        **named, **vars(command.options),
    )  # fmt: skip
