"""cli.console."""

from __future__ import annotations


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
