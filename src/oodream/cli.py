"""The command line: words in, a verb called, words out. Heavy imports happen inside commands."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .config import Config, ConfigError, FitDecoder, Measurement, overlay, to_json
from .presets import COMPARISONS, PRESETS

HELP = """usage: oodream COMMAND [OPTIONS]      (oodream COMMAND --help lists a command's options)

Image classifiers that learn to say "I don't know", from outliers imagined by a diffusion model.

  demo          the whole job on embedded data, with a report to look at
  run           the whole job on your own data, or on a preset
  score         a class, or "unknown", for your images
  decode        a run's images: a share of them on this machine, damaged ones, single ones
  export        a run's guard as a folder for the hub, with a model card, and as an ONNX graph
  compare       several methods under one budget and the same seeds, in one table
  evaluate      a network on a protocol (OpenOOD's, DREAM-OOD's, your own), by any detectors
  audit         what makes OOD numbers lie: pictures in two sets, traces of files, known classes among the unknown
  fit-decoder   train a small Stable Diffusion from captioned images
  list          presets, comparisons, protocols, samplers, losses, detectors, backbones
  doctor        what this machine has, and what is missing
"""


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
    chosen = tyro.cli(Run, prog=f"oodream {preset or 'run'}", args=list(args), default=Run(where=where, options=base))
    config, where = chosen.options, chosen.where
    if not config.data:
        raise ConfigError("Which images? Give --data FOLDER (a folder of class folders), or --preset fashion.")
    called = Path(config.data).resolve().name if name == "folder" else name
    folder = where.run or Path("runs") / (f"{called}-validation" if config.validate else called)
    if where.dry_run:
        print(json.dumps(to_json(config), indent=2))
        print(f"Would run in {folder}: {PRESETS[name].about}.")
        return 0

    from .distributed import leads
    from .pipeline import Pipeline
    from .store import RunDir

    if leads():
        print(f"oodream: {PRESETS[name].about}\n  run folder: {folder}", flush=True)
    pipeline = Pipeline(config, RunDir(folder), shlex.join(["oodream", preset or "run", *args]))
    pipeline.go(say, until=where.until, redo=where.redo)
    if where.until == "report" and leads():
        from .present import headline

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

    from .compare import compare, read_arms, table

    if where.arms not in COMPARISONS and not Path(where.arms).is_file():
        raise ConfigError(f"There is no comparison {where.arms!r}. There are: {', '.join(COMPARISONS)}; or name a JSON file.")
    arms = COMPARISONS[where.arms].arms if where.arms in COMPARISONS else read_arms(Path(where.arms).read_text(encoding="utf-8"))
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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Which network, on which protocol."""

    protocol: str
    """a protocol by name (see `oodream list`), or a TOML file of your own"""
    model: str = ""
    """a classifier's folder, or a network by name: timm:NAME or hf:NAME with published weights, others with --weights"""
    root: tuple[Path, ...] = ()
    """folders that hold the images and lists; no other file is read (default: a protocol file's own folder)"""
    weights: Path | None = None
    """a safetensors file of the network's weights"""
    out: Path | None = None
    """folder to write (default: runs/evaluate-PROTOCOL-MODEL); the network's outputs are kept there for the next time"""
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
    options: Annotated[Measurement, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Measurement)


def evaluate(args: Sequence[str]) -> int:
    """`oodream evaluate`."""
    found = tyro.cli(Evaluate, prog="oodream evaluate", args=_joined(args))
    chosen, options = found.where, found.options

    from . import benchmarking, protocols

    benchmark = protocols.load(chosen.protocol)
    own = (Path(chosen.protocol).parent,) if chosen.protocol.endswith(".toml") else ()
    roots = chosen.root or own
    if chosen.dry_run:
        print(benchmarking.overview(benchmark, roots, chosen.hub))
        return 0
    if not chosen.model:
        raise ConfigError("Which network? Give --model: a classifier's folder, or a name such as timm:resnet50.a1_in1k.")
    model = "-".join(re.findall(r"[\w.]+", chosen.model))
    out = chosen.out or Path("runs") / f"evaluate-{benchmark.name}-{model}"
    job = benchmarking.Job(out=out, roots=roots, hub=chosen.hub, plugins=chosen.plugins, **vars(options))
    print(f"\n{benchmarking.measure(benchmark, chosen.model, chosen.weights, job, say)}\nResults: {out.resolve()}")
    return 0


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Draw a run's outliers: a share of them (under torchrun or accelerate each process its own), damaged ones, or single ones."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder in which outliers have been sampled (oodream run … --until outliers)"""
    output: Annotated[str, tyro.conf.arg(name="as")] = ""
    """images or latents, where they should be other than the run's own"""
    shard: str = ""
    """i/n draws the i-th of n parts, counted from 0; `oodream run` then goes on with what all have drawn"""
    verify: bool = False
    """draw only images that are missing or damaged"""
    row: tuple[int, ...] = ()
    """draw these rows once more, into --out"""
    out: Path = Path("redrawn")
    """where --row draws"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def draw(args: Sequence[str]) -> int:
    """`oodream decode`."""
    chosen = tyro.cli(Draw, prog="oodream decode", args=list(args))

    from . import distributed, drawing

    begun = drawing.begun(chosen.run, chosen.device, chosen.output)
    if chosen.row:
        for file in drawing.redraw(begun, chosen.row, chosen.out):
            print(file)
    elif chosen.verify:
        print(f"{drawing.verify(begun, say)} images were missing or damaged")
    else:
        part = distributed.shard(chosen.shard) if chosen.shard else distributed.launched()
        n = drawing.draw_shard(begun, part)
        print(f"{n} images drawn (part {part.index} of {part.count}). Go on with: {begun.command}")
    return 0


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

    from .classifier import score_files
    from .guard import judge_of
    from .images import image_files
    from .pipeline import device_of

    loaded, device = judge_of(chosen.run, chosen.classifier, chosen.plugins), device_of(chosen.device)
    loaded.network.to(device)
    files = [file for path in chosen.images for file in (image_files(path) if path.is_dir() else [path])]
    unread = 0
    for file, verdict in score_files(loaded, files, device):
        if isinstance(verdict, str):
            print(f"oodream: {file} cannot be read: {verdict}", file=sys.stderr)
            unread += 1
        elif chosen.json:
            print(json.dumps({"file": str(file), **dataclasses.asdict(verdict)}, ensure_ascii=False))
        else:
            print(f"{verdict.answer:20} score {verdict.score:9.3f}, threshold {verdict.threshold:9.3f}   {file}")
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

    from .evaluate import row_from_json
    from .export import export
    from .guard import Guard
    from .pipeline import DREAM
    from .store import RunDir

    guard, results = Guard.load(chosen.run, plugins=chosen.plugins), chosen.run / "results.jsonl"
    rows = [row_from_json(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []
    if stamp := RunDir(chosen.run).stamp("guard"):
        rows = [row for row in rows if (row.classifier, row.seed, row.detector) == (DREAM, 0, stamp["inputs"]["detector"])]
    worst = export(guard, chosen.out, rows, chosen.onnx)
    print(f"{chosen.out.resolve()}: {guard.promise}")
    if worst is not None:
        print(f"guard.onnx gives the same answers; its scores differ by {worst:.2g} at most")
    return 0


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Look for what makes OOD numbers lie. The exit code is 0 without a problem (there may be warnings), and 1 with one."""

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

    from . import auditing
    from .audit import to_json as findings

    given = Config(data=chosen.data, ood=chosen.ood, classes=chosen.classes, size=chosen.size, seed=chosen.seed)
    done = auditing.of_run(chosen.run) if chosen.run else auditing.of_folders(given)
    for line in [json.dumps(findings(done), indent=2, ensure_ascii=False)] if chosen.json else auditing.lines(done):
        print(line)
    return 1 if done["problem"] else 0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train a small Stable Diffusion (diffusers folder) from captioned images. The same command again resumes."""

    images: Annotated[Path, tyro.conf.Positional]
    """folder of images with a metadata.jsonl (file_name, text, optional weight), or of folders named as their captions"""
    out: Path
    """folder to write"""
    options: Annotated[FitDecoder, tyro.conf.arg(name="")] = dataclasses.field(default_factory=FitDecoder)


def fit(args: Sequence[str]) -> int:
    """`oodream fit-decoder`."""
    chosen = tyro.cli(Fit, prog="oodream fit-decoder", args=list(args))

    from .data import captioned_folder
    from .fit_decoder import fit_decoder
    from .pipeline import device_of

    images, captions, weights = captioned_folder(chosen.images, chosen.options.resolution)
    print(f"{len(images)} images, {len(set(captions))} captions", flush=True)
    summary = fit_decoder(images, captions, weights, chosen.out, chosen.options, device_of(chosen.options.device))
    print(json.dumps(summary, indent=2))
    return 0


def list_all(args: Sequence[str]) -> int:
    """`oodream list`."""
    from . import protocols, registry
    from .backbones import ADAPTERS
    from .vision import BACKBONES

    for name, preset in PRESETS.items():
        print(f"preset    {name:20} {preset.about}")
    for name, comparison in COMPARISONS.items():
        print(f"arms      {name:20} {comparison.about}")
    for name in protocols.names():
        print(f"protocol  {name:20} {protocols.load(name).about}")
    for family in registry.FAMILIES:
        for name in registry.names(family):
            first = (registry.get(family, name).__doc__ or "").strip().splitlines()[0]
            print(f"{registry.singular(family):9} {name:20} {first}")
    for name in (*BACKBONES, *(f"{family}:NAME" for family in ADAPTERS)):
        print(f"backbone  {name}")
    return 0


def doctor(args: Sequence[str]) -> int:
    """`oodream doctor`."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from .builtin import DEBIAN
    from .decoders.stable import EMBEDDED

    for package in ("oodream", "torch", "diffusers", "transformers", "accelerate", "safetensors", "datasets", "timm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        print(f"{package:14} {found}")
    print(f"{'python':14} {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'cuda':14} {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    print(f"{'decoder':14} {'embedded' if (EMBEDDED / 'model_index.json').exists() else 'MISSING: reinstall oodream'}")
    print(f"{'fashion-full':14} {DEBIAN if DEBIAN.is_dir() else 'only with: pip install oodream[hub]'}")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "demo": lambda args: run(args, preset="demo"),
    "run": run,
    "score": score,
    "decode": draw,
    "export": export_guard,
    "compare": compare,
    "evaluate": evaluate,
    "audit": audit,
    "fit-decoder": fit,
    "list": list_all,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: 0 done, 2 refused with a reason, 130 interrupted."""
    if argv is None:
        signal.signal(signal.SIGINT, Interrupts.handle)
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] in ("-V", "--version"):
        from . import __version__

        print(f"oodream {__version__}")
        return 0
    if args[0] not in COMMANDS:
        print(f"oodream: there is no command {args[0]!r}.\n\n{HELP}", file=sys.stderr)
        return 2
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    warnings.showwarning = lambda message, *_, **__: print(f"  note: {message}", file=sys.stderr)
    try:
        return COMMANDS[args[0]](args[1:])
    except KeyboardInterrupt:
        print("\noodream: stopped. The same command again goes on from here.", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, ArithmeticError, OSError) as error:
        if os.environ.get("OODREAM_DEBUG"):
            raise
        print(f"oodream: {error}", file=sys.stderr)
        return 2


class Interrupts:
    """Ctrl-C, remembered: Python drops a KeyboardInterrupt that falls into a destructor or a callback of C code."""

    seen = False

    @classmethod
    def handle(cls, *_: object) -> None:
        cls.seen = True
        raise KeyboardInterrupt


def say(line: str) -> None:
    """Prints a finished stage's line; the place where a dropped Ctrl-C takes effect."""
    print(line, flush=True)
    if Interrupts.seen:
        raise KeyboardInterrupt


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


if __name__ == "__main__":
    sys.exit(main())
