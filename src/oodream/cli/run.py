"""cli.run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..config import Config
from ..core.options import ConfigError, overlay, to_json
from ..presets import COMPARISONS, PRESETS
from .console import say

SEVERAL = ("--root", "--ood", "--shifted", "--validate", "--redo", "--only")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which run, and how far."""

    run: Path | None = None
    """run folder (default: runs/PRESET or runs/FOLDER); the same command again resumes it"""
    preset: str | None = None
    """where the options start from (see `oodream list`)"""
    config: Path | None = None
    """a JSON file of options, laid over the preset; options on the command line win"""
    until: str = "report"
    """last stage to run"""
    redo: tuple[str, ...] = ()
    """stages to make afresh, with all that follows them; "changed": those whose options or images have changed"""
    dry_run: bool = False
    """print the plan and stop"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """From labelled images to a classifier that says "unknown", and a report."""

    where: Annotated[Where, tyro.conf.arg(name="")]
    options: Annotated[Config, tyro.conf.arg(name="")]


def run(args: Sequence[str], preset: str | None = None) -> int:
    """`oodream run` and, with `preset`, `oodream demo`."""
    args = _joined(args)
    first = _peek(args)
    name = first.get("--preset") or preset or ("folder" if "--data" in first else "fashion")
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
    base = PRESETS[name].config
    if "--config" in first:
        base = overlay(base, _read_options(Path(first["--config"])))
    where = Where(preset=name)
    chosen = tyro.cli(
        Run, prog=f"oodream {preset or 'run'}", args=list(args), default=Run(where=where, options=base)
    )
    config, where = chosen.options, chosen.where
    if not config.data:
        raise ConfigError(
            "Which images? Give --data FOLDER (a folder of class folders), or --preset fashion."
        )
    called = Path(config.data).resolve().name if name == "folder" else name
    folder = where.run or Path("runs") / (f"{called}-validation" if config.validate else called)
    if where.dry_run:
        print(json.dumps(to_json(config), indent=2))
        print(f"Would run in {folder}: {PRESETS[name].about}.")
        return 0

    from ..core.distributed import is_main
    from ..run.folder import RunDir
    from ..run.pipeline import Pipeline

    if is_main():
        print(f"oodream: {PRESETS[name].about}\n  run folder: {folder}", flush=True)
    pipeline = Pipeline(config, RunDir(folder), shlex.join(["oodream", preset or "run", *args]))
    pipeline.go(say, until=where.until, redo=where.redo)
    if where.until == "report" and is_main():
        from ..run.present import headline

        print(f"\n{headline(pipeline)}\nReport: {(folder / 'report' / 'index.html').resolve()}")
    return 0


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Several methods under one budget and the same seeds; one table."""

    arms: str = "oal"
    """a comparison by name (see `oodream list`), or a JSON file {"arm": {option: value}}"""
    run: Path | None = None
    """folder of the arms' run folders (default: runs/compare-NAME)"""
    preset: str | None = None
    """where the common options start from"""
    only: tuple[str, ...] = ()
    """of these arms alone"""
    dry_run: bool = False
    """print the arms and stop"""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Several methods under one budget and the same seeds; one table."""

    where: Annotated[Compared, tyro.conf.arg(name="")]
    options: Annotated[Config, tyro.conf.arg(name="")]


def compare(args: Sequence[str]) -> int:
    """`oodream compare`."""
    args = _joined(args)
    first = _peek(args)
    named = COMPARISONS.get(first.get("--arms", Compared.arms))
    name = first.get("--preset") or (named.preset if named else "demo")
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
    default = Compare(where=Compared(preset=name), options=PRESETS[name].config)
    chosen = tyro.cli(Compare, prog="oodream compare", args=list(args), default=default)
    where, config = chosen.where, chosen.options

    from ..run.compare import compare, read_arms, table

    if where.arms not in COMPARISONS and not Path(where.arms).is_file():
        raise ConfigError(
            f"There is no comparison {where.arms!r}. There are: {', '.join(COMPARISONS)}; or name a JSON file."
        )
    arms = (
        COMPARISONS[where.arms].arms
        if where.arms in COMPARISONS
        else read_arms(Path(where.arms).read_text(encoding="utf-8"))
    )
    if unknown := [arm for arm in where.only if arm not in arms]:
        raise ConfigError(f"There is no arm {unknown[0]!r}. There are: {', '.join(arms)}.")
    arms = {arm: options for arm, options in arms.items() if not where.only or arm in where.only}
    for options in arms.values():
        overlay(config, options)
    if where.dry_run:
        print(json.dumps(arms, indent=2))
        return 0
    folder = where.run or Path("runs") / f"compare-{Path(where.arms).stem}"
    if lines := compare(config, arms, folder, shlex.join(["oodream", "compare", *args]), say):
        print(f"\n{table(lines)}\nTable: {(folder / 'comparison.md').resolve()}")
    return 0


def _joined(args: Sequence[str]) -> list[str]:
    """The arguments with the values of an option given several times behind its first place: `--ood A --ood B` is `--ood A B`."""
    single: list[str] = []
    several: dict[str, list[str]] = {}
    into = single
    for arg in args:
        key, equals, value = arg.partition("=")
        if key in SEVERAL:
            if key not in several:
                single.append(key)
            into = several.setdefault(key, [])
            into += [value] if equals else []
        elif arg.startswith("--"):
            into = single
            single.append(arg)
        else:
            into.append(arg)
    return [part for arg in single for part in (arg, *several.get(arg, ()))]


def _peek(args: Sequence[str]) -> dict[str, str]:
    """The values of the options that decide what the others start from."""
    found = {}
    for i, arg in enumerate(args):
        key, equals, value = arg.partition("=")
        if key in ("--preset", "--config", "--data", "--arms"):
            found[key] = value if equals else next(iter(args[i + 1 : i + 2]), "")
    return found


def _read_options(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} does not hold a JSON object of options.")
    return values
