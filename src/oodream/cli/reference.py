"""The page docs/options.md, made from the configuration and from the registered extensions.

`python -m oodream.cli.reference` prints it. No command imports this module: it loads extensions and PyTorch.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from ..comparisons import COMPARISONS
from ..config import Config
from ..core import registry
from ..core.options import Range, default_of
from ..presets import PRESETS
from .console import all_flags, bare, fields_of, flag_of, option_text
from .decoder import DecodeOptions, FitOptions
from .deploy import ExportOptions, ScoreOptions
from .evaluate import Audit, Evaluate
from .guard import GuardOptions
from .run import CompareOptions, RunOptions
from .serve import ServeOptions
from .studio import StudioOptions

__all__ = ["COMMANDS", "SECTION_STAGES", "flags", "main", "options_page"]

COMMANDS: dict[str, type] = {
    "run": RunOptions,
    "compare": CompareOptions,
    "guard": GuardOptions,
    "score": ScoreOptions,
    "decode": DecodeOptions,
    "export": ExportOptions,
    "serve": ServeOptions,
    "studio": StudioOptions,
    "evaluate": Evaluate,
    "audit": Audit,
    "fit-decoder": FitOptions,
}
"""The options of every command that has some."""
SECTION_STAGES = {
    "align": ("align",),
    "sample": ("vectors",),
    "decode": ("images/imagined", "latents/imagined", "strips"),
    "reconstruct": ("images/reconstructed",),
    "filter": ("filter",),
    "latents": ("latents/adapter", "classifier/regularized-s…"),
    "train": ("classifier/baseline-s…", "classifier/regularized-s…"),
    "regularize": ("classifier/regularized-s…",),
    "evaluate": ("scores",),
    "guard": ("guard",),
    "shift": ("shift",),
    "report": ("strips", "report"),
}
"""The stages that a changed option of a section makes stale, with all that follow them."""
FAMILY_FLAGS = {
    "samplers": ("--sample.sampler", "--sample.options", ""),
    "decoders": ("--decode.decoder", "--decode.options", "More for all of them: [decode](#decode)."),
    "filters": ("--filter.filters", "--filter.options", ""),
    "losses": ("--regularize.loss", "--regularize.loss-options", ""),
    "latent_adapters": ("--latents.adapter", "--latents.options", ""),
    "detectors": (
        "--evaluate.detectors",
        "--evaluate.detector-options",
        "What each computes: [detectors](detectors.md).",
    ),
}
GIVEN = {  # parameters of extensions that are no options: the program fills them
    "decoders": set("source names prompts spans size scheduler steps guidance tile device".split()),
    "latent_adapters": {"model", "latent", "size"},
}
NUMBERS = {int: "integer", float: "number"}
INTRODUCTION = """\
# Options

This page is made from the program: `make options` writes it, `python -m oodream.cli.reference` prints it.
`oodream COMMAND --help` says the same of one command.

- An option is written `--section.option value`. A switch is `--regularize.finetune` or
  `--regularize.no-finetune`.
- The defaults below are those of no preset. `--data FOLDER` starts from the preset `folder`, which trains for
  at least 600 steps (`--train.optimisation.min-steps`); `--dry-run` prints what a run would have.
- A list has its values one behind the other, or the option several times: `--ood street indoor` is
  `--ood street --ood indoor`. A list replaces the default. Without a value it is empty: `--filter.filters`
  alone means that nothing is filtered. A value may begin with a dash: `--unknown=-minus`.
- Options of extensions are written NAME=VALUE and laid over those of the preset:
  `--sample.options k=3 cosine=0.8`. Where several extensions are used, `NAME.option` belongs to NAME and a
  bare `option` to the first. With the losses energy_logistic and kd,
  `--regularize.loss-options beta=2 kd.logit=4` sets one option of each.
- `--preset` says where all options start from, `--config FILE` lays a JSON file over the preset, and the
  command line wins. In JSON sections are objects, and names have underscores:
  `{"regularize": {"outlier_aug_prob": 0.8}}`.
- `oodream run --preset demo --dry-run` prints every option with its value, and of each stage whether it is
  done or would be made, or made again and why. A run keeps its options in its `run.json`.
- In Python a configuration is `oodream.Config`, with the same names, defaults and checks.
- A command exits with 0 when it is done, 1 where an audit finds a problem, 2 where it refuses (it says why)
  or a picture could not be read, and 130 after Ctrl-C. With `OODREAM_DEBUG=1` in the environment an error
  is printed with its traceback.

A section is the input of the stages that are named above its table. A changed option makes these stale, and
those that follow them. `--redo changed` makes them afresh ([run folder](run-folder.md)).
"""


def options_page() -> str:
    """The page, in Markdown."""
    parts = [
        INTRODUCTION,
        *(_command(name, options) for name, options in COMMANDS.items()),
        _extensions(),
        _presets(),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def flags(command: str) -> set[str]:
    """The flags of a command, as they are written: `--sample.per-class`, and both forms of a switch."""
    return {flag for flags, _ in all_flags(COMMANDS[command]) for flag in flags}


def main() -> None:
    """Prints the page."""
    print(options_page(), end="")


# Commands and sections


def _command(name: str, options: type) -> str:
    title = "`oodream run`, `oodream demo`" if name == "run" else f"`oodream {name}`"
    parts = [f"## {title}\n", f"{_about(options)}\n"]
    own, nested = fields_of(options)
    blocks = [*([options] if own else []), *(kind for _, flat, kind in nested if flat)]
    for block in blocks:
        if block is Config and name != "run":
            parts.append("And all options of `oodream run`, but for which run, and how far.\n")
        else:
            parts += [*([] if block is options else [f"{_about(block)}\n"]), _table(block, "")]
            if block is Config:
                parts += [_section(field, kind) for field, _, kind in fields_of(Config)[1]]
    return "\n".join(parts)


def _section(name: str, kind: type) -> str:
    stages = ", ".join(f"`{stage}`" for stage in SECTION_STAGES[name])
    parts = [f"### {name}\n", f"{_about(kind)} Stages: {stages}.\n", _table(kind, f"{name}.")]
    for field, _, inner in fields_of(kind)[1]:
        default = getattr(kind(), field)
        differing = [
            f"{f.name} {getattr(default, f.name)}"
            for f in dataclasses.fields(inner)
            if getattr(default, f.name) != f.default
        ]
        but = f", but with {' and '.join(differing)}" if differing else ""
        if name == "align":
            parts.append(f"`--align.{field}.…` are as `--train.{field}.…`{but}.\n")
        else:
            parts.append(f"{_about(inner)}\n\n{_table(inner, f'{name}.{field}.')}")
    return "\n".join(parts)


def _table(kind: type, prefix: str) -> str:
    documented = _docs(kind)
    own, _ = fields_of(kind)
    rows = [
        (f"`{flag_of(field, hint, prefix)[0]}`", _values(hint), _default(field), documented[field.name])
        for field, hint in own
    ]
    return _markdown(("option", "values", "default", "meaning"), rows)


def _values(hint: Any) -> str:
    """What an option takes, in words."""
    hint, notes = bare(hint)
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" if value else "empty" for value in inside)
    if origin is dict:
        return "`NAME=VALUE …`"
    if origin is tuple:
        return f"list of {_values(inside[0])}s"
    if origin in (typing.Union, types.UnionType):
        return _values(inside[0])
    limits = "".join(f", {_limits(note)}" for note in notes if isinstance(note, Range))
    return {**NUMBERS, bool: "switch", str: "text"}.get(hint, hint.__name__.lower()) + limits


def _limits(limits: Range) -> str:
    """A range in words; an end that no one reaches is not named."""
    return str(dataclasses.replace(limits, high=math.inf) if limits.high > 2**53 else limits)


def _default(field: Any) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = default_of(field)
    if isinstance(value, tuple):
        return " ".join(f"`{_text(one)}`" for one in value) or "none"
    return f"`{_text(value)}`" if value not in (None, "", {}) else "none"


def _text(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _about(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _docs(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass, read from its source."""
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    texts = {}
    for node, below in itertools.pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            texts[typing.cast(ast.Name, node.target).id] = " ".join(str(below.value.value).split())
    return texts


# Extensions and presets


def _extensions() -> str:
    parts = [
        "## Extensions\n",
        "Each is chosen by name, or as `package.module:Class` ([extending](extending.md)). Options are shown "
        "with their defaults; with their other values, too, where these are few.\n",
    ]
    for family in registry.FAMILIES:
        choose, set_, more = FAMILY_FLAGS[family]
        written = f"`{choose} NAME`" + (f", `{set_} OPTION=VALUE`" if set_ else "")
        parts.append(f"### {family.replace('_', ' ').capitalize()}\n")
        parts.append(f"{written}. {more}".rstrip() + "\n")
        described = family != "detectors"
        rows = [
            (f"`{name}`", _options_of(family, name), *([registry.summary(family, name)] if described else []))
            for name in registry.names(family)
        ]
        parts.append(_markdown(("name", "options", *(["about"] if described else [])), rows))
    return "\n".join(parts)


def _options_of(family: str, name: str) -> str:
    """An extension's options with their defaults."""
    extension = registry.get(family, name)
    described = extension if dataclasses.is_dataclass(extension) else extension.__init__
    hints = typing.get_type_hints(described, include_extras=True)
    options = []
    for key, parameter in inspect.signature(extension).parameters.items():
        if key in GIVEN.get(family, ()) or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        default = option_text(parameter.default)
        choices = [choice for choice in _choices(hints.get(key)) if choice != default]
        shown = f"{key}={default}" if parameter.default not in (None, parameter.empty) else key
        options.append(f"`{shown}`" + (f" (or {', '.join(choices)})" if choices else ""))
    return ", ".join(options)


def _choices(hint: Any) -> list[str]:
    hint, _ = bare(hint)
    return [str(value) for value in typing.get_args(hint)] if typing.get_origin(hint) is Literal else []


def _presets() -> str:
    parts = ["## Presets\n", "`--preset NAME`; `oodream run --preset NAME --dry-run` prints one.\n"]
    parts.append(
        _markdown(("preset", "about"), [(f"`{name}`", preset.about) for name, preset in PRESETS.items()])
    )
    parts += ["## Comparisons\n", "`oodream compare --arms NAME` ([experiments](experiments.md)).\n"]
    rows = [(f"`{name}`", one.about, "; ".join(one.arms)) for name, one in COMPARISONS.items()]
    parts.append(_markdown(("comparison", "about", "arms"), rows))
    return "\n".join(parts)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        head,
        ["---"] * len(head),
        *([re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
