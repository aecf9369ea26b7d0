"""What people decide about a run's imagined rows: `curation.jsonl` in the run's folder, a line for each row
and decision, which is only ever added to.

A decision belongs to the images that it was made of: `of` is the hash of their stage's inputs. Where other
images take their place it does not count, and it counts again when they come back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock

from ..core.errors import StoreError, brief, shown
from ..core.files import decode_text, encode_json, explained, parse_json
from ..core.sealed import with_check, without_check
from ..core.types import Json

__all__ = ["PERSON", "REJECTED", "Curation", "Decision", "decide", "read_decisions", "undo"]

PERSON = "person"
"""who decides"""
REJECTED = "a person rejected it"
"""the reason why such a row was dropped"""
MAX_ROWS = 1 << 62
SECONDS = 20  # that another process may hold the file
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """That a row is to be kept, whatever the filters say, or rejected; or, with None, as if nobody had
    decided.

    Decisions that were made together have the same `at`, an ISO time. One that undoes others has theirs in
    `undoes`.
    """

    row: int
    keep: bool | None
    at: str
    by: str
    of: str
    undoes: str = ""


class Curation:
    """Those decisions that are about one set of images, in their order."""

    def __init__(self, decisions: Sequence[Decision], of: str) -> None:
        self.decisions = [decision for decision in decisions if decision.of == of]

    @cached_property
    def states(self) -> dict[int, bool]:
        """The last decision about each row that there is one of: whether it is kept."""
        last = {decision.row: decision.keep for decision in self.decisions}
        return {row: keep for row, keep in last.items() if keep is not None}

    @property
    def rejected(self) -> list[int]:
        """Rows that are rejected, in order."""
        return sorted(row for row, keep in self.states.items() if not keep)

    @property
    def kept(self) -> list[int]:
        """Rows that are kept whatever the filters say, in order."""
        return sorted(row for row, keep in self.states.items() if keep)

    @property
    def inputs(self) -> Json:
        """What a stage that obeys these decisions is made from; empty where nothing is decided."""
        if not self.states:
            return {}
        rows = json.dumps([self.rejected, self.kept]).encode()
        digest = hashlib.blake2b(rows, digest_size=8).hexdigest()
        return {"rejected": len(self.rejected), "kept": len(self.kept), "rows": digest}

    def check(self, count: int, file: Path) -> None:
        """Raises StoreError where a row is decided about that the run does not have."""
        if beyond := [row for row in self.states if row >= count]:
            raise StoreError(
                f"{shown(file)} decides about row {beyond[0]}, and the run has rows 0 to {count - 1}. "
                "Remove the line."
            )

    @property
    def last(self) -> tuple[str, dict[int, bool | None]] | None:
        """The last decisions that are not undone: their time, and what was decided about each row before."""
        now: dict[int, bool | None] = {}
        done: list[tuple[str, dict[int, bool | None]]] = []
        for decision in self.decisions:
            former = now.get(decision.row)
            now[decision.row] = decision.keep
            if decision.undoes:
                done = [batch for batch in done if batch[0] != decision.undoes]
                continue
            if not done or done[-1][0] != decision.at:
                done.append((decision.at, {}))
            done[-1][1].setdefault(decision.row, former)
        return done[-1] if done else None


def read_decisions(file: Path) -> list[Decision]:
    """All decisions in a file, which need not be there.

    The rest of a line that was being written when the process was killed does not count. Raises StoreError,
    with the line's number, for any other line that is no decision.
    """
    try:
        with _opened(file, os.O_RDONLY) as handle:
            return _parsed(_whole(_all(handle)), file)
    except FileNotFoundError:
        return []


def decide(file: Path, of: str, keeps: Mapping[int, bool | None]) -> Curation:
    """Adds decisions about rows, made together, and returns all about these images.

    What changes nothing is not written. Raises StoreError where the file cannot be written or is damaged.
    """

    def changing(now: Curation) -> tuple[dict[int, bool | None], str]:
        return {row: keep for row, keep in keeps.items() if now.states.get(row) != keep}, ""

    return _append(file, of, changing)


def undo(file: Path, of: str) -> tuple[Curation, list[int]]:
    """Takes the last decisions back that are not taken back yet; returns all about these images, and the
    rows.

    Raises ValueError where there are none, and else as `decide`.
    """
    rows: list[int] = []

    def former(now: Curation) -> tuple[dict[int, bool | None], str]:
        if now.last is None:
            raise ValueError("There is nothing to undo.")
        at, keeps = now.last
        rows.extend(keeps)
        return keeps, at

    return _append(file, of, former), rows


def _append(
    file: Path, of: str, choose: Callable[[Curation], tuple[dict[int, bool | None], str]]
) -> Curation:
    """Adds what is chosen in view of the decisions so far, as whole lines, while nobody else writes."""
    with explained(file), _locked(file), _opened(file, os.O_RDWR | os.O_CREAT) as handle:
        whole = _whole(_all(handle))
        decisions = _parsed(whole, file)
        keeps, undoes = choose(Curation(decisions, of))
        at = _after(decisions)
        new = [
            Decision(row=row, keep=keep, at=at, by=PERSON, of=of, undoes=undoes)
            for row, keep in keeps.items()
        ]
        lines = b"".join(encode_json(with_check(_line(decision))) + b"\n" for decision in new)
        if lines:
            handle.truncate(len(whole))
            handle.seek(len(whole))
            handle.write(lines if whole.endswith(b"\n") or not whole else b"\n" + lines)
            handle.flush()
            os.fsync(handle.fileno())
    return Curation([*decisions, *new], of)


def _after(decisions: Sequence[Decision]) -> str:
    """The time, or where the clock has been set back a time that no decision has: by it they are undone."""
    at, taken = datetime.now(UTC), {decision.at for decision in decisions}
    while (text := at.isoformat(timespec="microseconds")) in taken:
        at += timedelta(microseconds=1)
    return text


def _line(decision: Decision) -> Json:
    line = asdict(decision)
    return line if decision.undoes else {key: value for key, value in line.items() if key != "undoes"}


def _all(handle: Any) -> bytes:
    handle.seek(0)
    data: bytes = handle.read()
    return data


def _whole(data: bytes) -> bytes:
    """The data without a last line that was cut short. A line that merely has no end is whole."""
    lines, _, rest = data.rpartition(b"\n")
    try:
        parse_json(rest.decode())
        return data
    except ValueError:
        return lines + b"\n" if lines else b""


def _parsed(data: bytes, file: Path) -> list[Decision]:
    decisions = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            decisions.append(_decision(parse_json(decode_text(line))))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{shown(file)}, line {number}, is no decision ({error}). Mend or remove the line."
            ) from error
    return decisions


def _decision(value: Any) -> Decision:
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    value = without_check(value)
    kinds: dict[str, Any] = {"row": int, "keep": (bool, type(None)), "at": str, "by": str, "of": str}
    for key, kind in kinds.items():
        if key not in value:
            raise ValueError(f"it has no {key!r}")
        if not isinstance(value[key], kind) or (key == "row" and isinstance(value[key], bool)):
            raise ValueError(f"its {key!r} is {brief(value[key])}")
    if not 0 <= value["row"] < MAX_ROWS:
        raise ValueError(f"its 'row' is {brief(value['row'])}")
    if not isinstance(value.get("undoes", ""), str):
        raise ValueError(f"its 'undoes' is {brief(value['undoes'])}")
    if unknown := sorted(value.keys() - {*kinds, "undoes"}):
        raise ValueError(f"it has {brief(unknown[0])}, which is not known")
    return Decision(**value)


@contextmanager
def _opened(file: Path, flags: int) -> Iterator[Any]:
    """The file, which must not be a link: it might lead out of the run."""
    try:
        number = os.open(file, flags | NO_LINK, 0o666)
    except OSError as error:
        if file.is_symlink():
            raise StoreError(f"{shown(file)} is a link. Put the file itself there.") from error
        raise
    with os.fdopen(number, "rb" if flags == os.O_RDONLY else "r+b") as handle:
        yield handle


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    try:
        with filelock.FileLock(file.with_name(f".{file.name}.lock"), timeout=SECONDS):
            yield
    except filelock.Timeout:
        raise StoreError(f"Another process is writing {shown(file)}. Try again.") from None
