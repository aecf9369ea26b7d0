"""What extensions do wrong, in words: which one it was, what it raised or gave, and where in a plug-in.

What an extension of a family must give is said beside what uses it; here is how a fault is told.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import brief, first_line, shown
from .memory import out_of_memory

__all__ = ["BrokenRule", "PluginFault", "blamed", "place_in", "require"]

PACKAGE = __name__.partition(".")[0]


class BrokenRule(ValueError):
    """An extension is not what it must be, or gave what it must not; a sentence says which rule is broken."""


class PluginFault(ValueError):
    """A plug-in raised something, or gave what it must not: its author can mend that, and who only uses a
    folder that names it knows that the folder is not to blame.
    """


def require(condition: bool, rule: str, *given: object) -> None:
    """Raises BrokenRule with the sentence `rule` unless the condition holds.

    A rule may end before the values that were `given`, which then follow in brief. They are printed only
    where the rule is broken, for whoever prints a tensor waits for its device.
    """
    if not condition:
        raise BrokenRule(f"{rule} {', '.join(map(brief, given))}." if given else rule)


@contextmanager
def blamed(what: str, extension: Any) -> Iterator[None]:
    """Within the block, what an extension (an object, its class or a function) raises becomes a ValueError
    that begins with `what`, its name, and tells type and message; of a plug-in a PluginFault, with file and
    line, too.

    Errors of this package (but BrokenRule) stay as they are, and so does memory that gives out, as well as a
    ValueError of anything but a plug-in: their words are for people.
    """
    told = PluginFault if _package(extension) != PACKAGE else ValueError
    try:
        yield
    except BrokenRule as error:
        raise told(f"{what}: {error}") from error
    except Exception as error:
        place = place_in(extension, error)
        if out_of_memory(error) or _is_ours(error) or (isinstance(error, ValueError) and not place):
            raise
        said = first_line(error).rstrip(".") if str(error).strip() else ""
        kind = f"{type(error).__name__}: " if said else type(error).__name__
        raise told(f"{what}: {kind}{said}{place}.") from error


def place_in(extension: Any, error: BaseException) -> str:
    """Where in a plug-in's package an error arose, in parentheses after a space: file and line of the
    innermost frame; empty for extensions of this package, and where the error passed no line of the plug-in.
    """
    if (package := _package(extension)) == PACKAGE:
        return ""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == package
    ]
    return f" ({shown(frames[-1][0])}, line {frames[-1][1]})" if frames else ""


def _package(extension: Any) -> str:
    return str(getattr(extension, "__module__", "")).partition(".")[0]


def _is_ours(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == PACKAGE
