"""The command line: words in, a verb called, words out. Heavy imports happen inside commands."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from .console import Interrupts
from .decoder import draw, fit
from .deploy import export_guard, score
from .evaluate import audit, evaluate
from .info import doctor, list_all
from .run import compare, run

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
        from .. import __version__

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
