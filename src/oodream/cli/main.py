"""The command line: words in, a verb called, words out. Heavy imports happen inside commands."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO, cast

from .console import Command, Interrupts
from .decoder import decode, fit
from .deploy import export, score
from .evaluate import audit, evaluate
from .guard import guard
from .info import doctor, list_all
from .run import compare, demo, run
from .serve import serve
from .studio import studio

__all__ = ["COMMANDS", "main", "usage"]

COMMANDS = {
    "demo": Command(about="the whole job on embedded data, with a report to look at", run=demo),
    "run": Command(about="the whole job on your own data, or on a preset", run=run),
    "guard": Command(
        about='"unknown" for the network that you have: its detector, a guarantee, a report', run=guard
    ),
    "score": Command(about='a class, or "unknown", for your images', run=score),
    "decode": Command(
        about="a run's images: a share of them on this machine, damaged ones, single ones", run=decode
    ),
    "export": Command(
        about="a run's guard as a folder for the hub, with a model card, and as an ONNX graph", run=export
    ),
    "serve": Command(about="a guard over HTTP, for other programs to ask", run=serve),
    "studio": Command(
        about="a page in the browser: choose among the outliers, imagine, try, compare, run", run=studio
    ),
    "compare": Command(
        about="several methods under one budget and the same seeds, in one table", run=compare
    ),
    "evaluate": Command(
        about="a network on a protocol (OpenOOD's, DREAM-OOD's, your own), by any detectors", run=evaluate
    ),
    "audit": Command(
        about="what makes OOD numbers lie: duplicates, shortcuts, known classes among the unknown", run=audit
    ),
    "fit-decoder": Command(about="train a small Stable Diffusion from captioned images", run=fit),
    "list": Command(
        about="presets, comparisons, protocols, and everything that can be plugged in", run=list_all
    ),
    "doctor": Command(about="what this machine has, and what is missing", run=doctor),
}


def usage() -> str:
    """The help text, made from the commands."""
    width = max(map(len, COMMANDS)) + 3
    lines = [f"  {name:{width}}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: oodream COMMAND [OPTIONS]      (oodream COMMAND --help lists a command's options)",
            "",
            "Out-of-distribution detection: classifiers learn to say 'I don't know' from imagined outliers.",
            "",
            *lines,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: 0 done, 1 the audit found a problem, 2 refused with a reason, 130 interrupted."""
    if argv is None:
        signal.signal(signal.SIGINT, Interrupts.handle)
        for stream in (sys.stdout, sys.stderr):  # file names may hold what a terminal cannot show
            cast(TextIO, stream).reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    # Threads of OpenMP that spin while they wait make work on a busy machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, for their authors
    warnings.showwarning = _notes()
    try:
        code = _dispatched(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\noodream: stopped. The same command again goes on from here.", file=sys.stderr)
        return 130
    except SystemExit as done:  # the parser has said what is wrong, or printed its help
        return done.code if isinstance(done.code, int) else 2
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, RuntimeError, ArithmeticError, OSError, MemoryError) as error:
        if os.environ.get("OODREAM_DEBUG"):
            raise
        print(f"oodream: {in_words(error)}", file=sys.stderr)
        return 2


def _dispatched(args: Sequence[str]) -> int:
    """The exit status of the command that is asked for, or of what is said in the place of one."""
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0
    if args[0] in ("-V", "--version"):
        from .. import __version__

        print(f"oodream {__version__}")
        return 0
    if args[0] not in COMMANDS:
        print(f"oodream: there is no command {args[0]!r}.\n\n{usage()}", file=sys.stderr)
        return 2
    return COMMANDS[args[0]].run(args[1:])


def _notes() -> Callable[..., None]:
    """What prints warnings, each once in a command: those of an arm are often the next one's, too."""
    said: set[str] = set()

    def note(message: object, *_: object, **__: object) -> None:
        if (text := str(message)) not in said:
            said.add(text)
            print(f"  note: {text}", file=sys.stderr)

    return note


def in_words(error: Exception) -> str:
    """What an error says, and where memory gave out what helps."""
    text = str(error)
    if not isinstance(error, MemoryError) and "out of memory" not in text and "CPUAllocator" not in text:
        return text
    return (
        f"Memory gave out{f' ({text})' if text else ''}. Lower the batch, the tile (decode.tile) or the size "
        "of images, or take a device with more memory. What is finished is kept."
    )
