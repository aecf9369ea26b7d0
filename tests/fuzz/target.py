"""What is fuzzed: a reader of the library with valid inputs, from which hostile ones are made."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .mutate import mutate_text

__all__ = ["CORPUS", "TARGETS", "Mutator", "Target", "kept", "load", "target"]

Read = Callable[[bytes], object]
Mutator = Callable[[bytes, random.Random], bytes]
CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader by name. `prepare` makes, in an empty folder, valid inputs and the reader; `mutate` changes an
    input so that it fits the reader.
    """

    name: str
    prepare: Callable[[Path], tuple[Sequence[bytes], Read]]
    mutate: Mutator
    short: int


TARGETS: dict[str, Target] = {}


def target(name: str, mutate: Mutator = mutate_text, short: int = 40) -> Callable:
    """Decorator: a function of a folder becomes the target `name`; the suite makes `short` of its inputs."""

    def decorator(prepare: Callable[[Path], tuple[Sequence[bytes], Read]]) -> Callable:
        TARGETS[name] = Target(name=name, prepare=prepare, mutate=mutate, short=short)
        return prepare

    return decorator


def kept(name: str) -> list[bytes]:
    """The inputs of a target that failed once."""
    return [file.read_bytes() for file in sorted((CORPUS / name.replace(" ", "-")).glob("*"))]


def load() -> None:
    """Makes all targets known."""
    from . import data_targets, guard_targets, run_targets, server_targets  # noqa: F401
