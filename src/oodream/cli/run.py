"""`oodream run`, `demo` and `compare`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..comparisons import COMPARISONS
from ..config import Config
from ..core.errors import did_you_mean, shown
from ..core.files import MAX_JSON, parse_json, read_text
from ..core.options import ConfigError, overlay, to_json
from ..core.processes import is_main
from ..core.storage import check_lasts, place_here
from ..presets import PRESETS
from .console import parse, say, value_of, working_in

__all__ = ["compare", "demo", "json_text", "read_options", "run"]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which run, and how far."""

    run: str | None = None
    """run folder (default: runs/PRESET or runs/FOLDER), or one in a bucket, as s3://BUCKET/FOLDER; the same
    command again resumes it
    """
    preset: str | None = None
    """where the options start from (see `oodream list`)"""
    config: Path | None = None
    """a JSON file of options, laid over the preset; options on the command line win"""
    until: str = "report"
    """last stage to run"""
    redo: tuple[str, ...] = ()
    """stages to make afresh, with all that follows them; "changed": those whose options or images have
    changed
    """
    dry_run: bool = False
    """print all options and which stages would be made, or made again and why, and stop"""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """From labelled images to a classifier that says "unknown", and a report."""

    where: Annotated[Where, tyro.conf.arg(name="")]
    options: Annotated[Config, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Which methods."""

    arms: str = "demo"
    """a comparison by name (see `oodream list`), or a JSON file {"arm": {option: value}}"""
    run: str = ""
    """folder of the arms' run folders, or one in a bucket (default: runs/compare-NAME)"""
    preset: str | None = None
    """where the common options start from (default: the comparison's, which has one for `--data`, too)"""
    only: tuple[str, ...] = ()
    """of these arms alone"""
    redo: tuple[str, ...] = ()
    """stages to make afresh in every arm that has them, with all that follows them; "changed": those whose
    options or images have changed
    """
    dry_run: bool = False
    """check options and images of all arms, print the arms and what would become of the stages that there
    are, and stop
    """


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Several methods under one budget and the same seeds; one table."""

    where: Annotated[Arms, tyro.conf.arg(name="")]
    options: Annotated[Config, tyro.conf.arg(name="")]


def demo(args: Sequence[str]) -> int:
    """`oodream demo`."""
    return run(args, "demo")


def run(args: Sequence[str], command: str = "run") -> int:
    """`oodream run`; as `oodream demo` it starts from that preset."""
    name = value_of(args, "--preset") or ("demo" if command == "demo" else "folder")
    base = _preset(name)
    if file := value_of(args, "--config"):
        base = overlay(base, read_options(Path(file)))
    default = RunOptions(where=Where(preset=name), options=base)
    chosen = parse(RunOptions, f"oodream {command}", args, default)
    config, where = chosen.options, chosen.where
    if not config.data:
        raise ConfigError(
            "Which images? Give --data FOLDER (a folder of class folders), or --preset demo or fashion."
        )
    short = Path(config.data).resolve().name if name.startswith("folder") else name
    place = where.run or str(Path("runs") / (f"{short}-validation" if config.validate else short))
    if where.dry_run:
        check_lasts(place)
        print(json.dumps(to_json(config), indent=2))
        print(f"Would run in {place}: {_about(name, config)}.")

        from ..run.preview import preview

        preview(config, place, until=where.until, redo=where.redo, say=say)
        return 0

    from ..run.headline import headline
    from ..run.runner import execute

    if is_main():
        print(f"oodream: {_about(name, config)}\n  run folder: {place}", flush=True)
    line = shlex.join(["oodream", command, *args])
    with working_in(place) as folder:
        result = execute(config, folder, command=line, until=where.until, redo=where.redo, say=say)
    if where.until == "report" and is_main():
        print(f"\n{headline(result)}\nReport: {result.layout.report.resolve()}")
    return 0


def compare(args: Sequence[str]) -> int:
    """`oodream compare`."""
    name = value_of(args, "--preset") or _made_for(args)
    default = CompareOptions(where=Arms(preset=name), options=_preset(name))
    chosen = parse(CompareOptions, "oodream compare", args, default)
    where, config = chosen.where, chosen.options

    from ..report.comparison import markdown
    from ..run.arms import preview_arms, read_arms
    from ..run.compare import compare

    if where.arms in COMPARISONS:
        arms = COMPARISONS[where.arms].arms
    elif (file := Path(where.arms)).is_file():
        text = json_text(file)
        try:
            arms = read_arms(text)
        except ValueError as error:
            raise ConfigError(f"{shown(file)} cannot be read as arms: {error}") from None
    else:
        raise ConfigError(f"{unknown('comparison', where.arms, COMPARISONS)} {_no_file(file)}")
    for arm in where.only:
        if arm not in arms:
            raise ConfigError(unknown("arm", arm, arms))
    arms = {arm: options for arm, options in arms.items() if not where.only or arm in where.only}
    place = where.run or str(Path("runs") / f"compare-{Path(where.arms).stem}")
    few = " (differences take two or more)" * (config.seeds == 1)
    what = f"arms {len(arms)}, seeds {config.seeds}{few}, {_about(name, config)}"
    if where.dry_run:
        check_lasts(place)
        with advised(where, _made_for(args)):
            print(json.dumps(arms, indent=2))
            print(f"Would run in {place}: {what}.")
            preview_arms(config, arms, place_here(place, "runs"), where.redo, say)
        return 0
    if is_main():
        print(f"oodream: {what}\n  folder: {place}", flush=True)
    with working_in(place) as folder, advised(where, _made_for(args)):
        line = shlex.join(["oodream", "compare", *args])
        measured = compare(config, arms, folder, line, say, where.redo)
    if measured:
        print(f"\n{markdown(measured)}\nPage: {(folder / 'comparison.html').resolve()}")
    return 0


@contextmanager
def advised(where: Arms, made_for: str) -> Iterator[None]:
    """Says of arms that cannot be run which preset their comparison is made for, if it is another one."""
    try:
        yield
    except ValueError as error:
        if where.arms not in COMPARISONS or where.preset == made_for:
            raise
        raise ConfigError(
            f"{error} The comparison {where.arms!r} is made for the preset {made_for!r}, and takes "
            f"options from it that {where.preset!r} may have otherwise."
        ) from error


def _made_for(args: Sequence[str]) -> str:
    """The preset that the arms start from: one for a user's images where such are given."""
    own, named = value_of(args, "--data"), COMPARISONS.get(value_of(args, "--arms") or Arms.arms)
    if named is None:
        return "folder" if own else "demo"
    return named.folder if own else named.preset


def _about(name: str, config: Config) -> str:
    """A preset in words, and the images where they are others than its own."""
    preset = PRESETS[name]
    return (
        preset.about
        if config.data == preset.config.data
        else f"the images of {shown(config.data)}, with the preset {name}"
    )


def _no_file(file: Path) -> str:
    """That there is no such file, in sentences, and which beside it may be meant."""
    beside = [str(path) for path in file.parent.glob("*.json")]
    return f"Nor is there a file {shown(file)}.{did_you_mean(str(file), beside)}"


def _preset(name: str) -> Config:
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS))
    return PRESETS[name].config


def unknown(noun: str, name: str, known: Iterable[str]) -> str:
    """That there is nothing of this name, in sentences, and what there is."""
    names = list(known)
    quoted = ", ".join(map(repr, names))
    return f"There is no {noun} {name!r}.{did_you_mean(name, names)} There are: {quoted}."


def json_text(file: Path) -> str:
    """The text of a file of JSON; ConfigError where it cannot be read, or is too large for one of options."""
    try:
        return read_text(file, MAX_JSON)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(file)} cannot be read as JSON: {error}") from None


def read_options(file: Path) -> dict[str, Any]:
    """The options in a file of JSON; ConfigError where it holds none."""
    text = json_text(file)
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{shown(file)} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{shown(file)} does not hold a JSON object of options.")
    return values
