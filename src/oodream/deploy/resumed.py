"""Answers to many pictures in one file, in an order and whole, though the work be killed and begun again.

Beside the file to write stands, until it is finished, a folder FILE.parts: `begun.json` says what the answers
are made with, `pictures.txt` lists files, and `part-000000` and so on hold some answers each. A part is
written whole or not at all, so what is there is kept. The file itself appears when all parts are there.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import LISTED, StoreError, brief, shown
from ..core.files import read_json, write_framed, write_json
from ..core.folders import held
from ..core.progress import counter
from ..data.stream import Pictures, Source, open_pictures
from .scoring import Answerer, answers
from .tables import Table, read_part, row_of, table_for

if TYPE_CHECKING:
    from ..core.types import Json

__all__ = ["PART", "Answering", "Tally", "answer_parts", "in_parts", "score_to"]

BEGUN, LIST = "begun.json", "pictures.txt"
PART = 1024
"""pictures in a part"""
SAID = {
    "guard": "another guard", "alpha": "another alpha", "threshold": "another threshold",
    "pictures": "other pictures, or in another order, or they have changed",
    "total": "another number of pictures",
    "part": "parts of another size",
}  # fmt: skip


@dataclass
class Tally:
    """How many pictures have been answered, flagged and not read, with the first of the latter; `before` says
    that all this was done before.
    """

    total: int = 0
    flagged: int = 0
    unread: int = 0
    first_unread: list[str] = field(default_factory=list)
    before: bool = False

    def __str__(self) -> str:
        done = "; it was finished before" if self.before else ""
        return f"{counted(self.total)}, {self.flagged:,} flagged, {self.unread:,} not read{done}"

    @property
    def not_read(self) -> str:
        """A sentence on the pictures that cannot be read."""
        return f"{counted(self.unread)} cannot be read"

    def add(self, rows: Sequence[Json]) -> None:
        """Counts the rows of a table."""
        for row in rows:
            self.total += 1
            self.flagged += bool(row["flagged"])
            if row["error"] is not None:
                self.unread += 1
                if len(self.first_unread) < LISTED:
                    self.first_unread.append(f"{shown(row['file'])}: {row['error']}")


def counted(pictures: int) -> str:
    """So many pictures, in words."""
    return f"{pictures:,} picture{'s' if pictures != 1 else ''}"


Answering = Callable[["Pictures", Sequence[int]], Iterator[tuple[int, "list[Json]"]]]
"""The rows of those parts of the pictures, in any order, each with its number."""


def score_to(
    file: Path,
    places: Sequence[str],
    predictor: Answerer,
    answering: Answering | None = None,
    goes_to: str = "",
) -> Tally:
    """Writes the answers of a guard, in PyTorch or on a graph, or of a classifier to the pictures of a
    command line (see `data.stream`), one row for each, in order: Parquet, CSV or JSON lines, by the
    file's suffix.

    `answering` may do the work elsewhere. What a killed process has finished is kept; where the file
    `goes_to` a URL all parts are, and the same call writes the file again without work. A file that says that
    it holds these very answers is finished, and stays as it is. Raises StoreError where another file is there
    already, where it was begun with another predictor or other pictures, and where another process is at it;
    and what `open_pictures` and `table_for` raise.
    """
    table, folder = table_for(file), file.with_name(f"{file.name}.parts")
    begun = folder / BEGUN
    if folder.exists() and not begun.exists() and any(_foreign(folder)):
        raise StoreError(f"{shown(folder)} holds something that is not of this program. Move it away.")
    with _locked(folder):
        pictures = open_pictures(places, folder / (f".{LIST}" if begun.exists() else LIST))
        facts = {**predictor.identity(), "pictures": pictures.identity, "total": pictures.total, "part": PART}
        if begun.exists():
            _check_same(file, read_json(begun), facts)
        elif file.exists():
            return _finished(table, file, facts, goes_to)
        write_json(begun, facts, sealed=True)
        parts = [folder / f"part-{i:06}{table.suffix}" for i in range(-(-pictures.total // PART))]
        tally = _fill(parts, table, pictures, answering or partial(answer_parts, predictor))
        table.join(parts, file, facts)
    if not goes_to:
        _remove(folder, parts)
    return tally


def _finished(table: Table, file: Path, facts: Json, goes_to: str) -> Tally:
    """What a file that is there has, if it says that it holds these answers; StoreError for another."""
    if (rows := table.joined(file, facts)) is None:
        raise StoreError(
            f"{goes_to or shown(file)} is there already, and does not say that it holds these answers. "
            "Remove it to score anew, or write to another file."
        )
    tally = Tally(before=True)
    for some in rows:
        tally.add(some)
    return tally


def _remove(folder: Path, parts: Sequence[Path]) -> None:
    """Removes the parts and then their folder, so that a kill leaves none without what says whose it is."""
    for part in parts:
        part.unlink()
    shutil.rmtree(folder)


def _fill(parts: Sequence[Path], table: Table, pictures: Pictures, answering: Answering) -> Tally:
    """Writes the parts that are missing or damaged."""
    tally, missing = Tally(), list[int]()
    for i, part in enumerate(parts):
        if (kept := _kept(table, part)) is None:
            missing.append(i)
        else:
            tally.add(kept)
    with (
        closing(answering(pictures, missing)) as answered,  # type: ignore[type-var]
        counter(total=pictures.total, done=tally.total, what="scoring", unit="image") as line,
    ):
        for i, rows in answered:
            write_framed(parts[i], table.encode(rows))
            tally.add(rows)
            line.update(len(rows))
    return tally


def _kept(table: Table, part: Path) -> list[Json] | None:
    """The rows of a part; None where it is missing, or, with a warning, damaged."""
    if not part.exists():
        return None
    try:
        return read_part(table, part)
    except StoreError:
        warnings.warn(f"{shown(part)} is damaged: its pictures are answered again.", stacklevel=2)
        return None


def answer_parts(
    predictor: Answerer, pictures: Pictures, missing: Sequence[int]
) -> Iterator[tuple[int, list[Json]]]:
    """The rows of these parts, in order."""
    stream = (one for _, part in in_parts(pictures, missing) for one in part)
    with closing(answers(predictor, stream)) as answered:
        for i in missing:
            yield i, [row_of(name, answer) for name, answer in islice(answered, PART)]


def in_parts(
    pictures: Pictures, missing: Sequence[int]
) -> Iterator[tuple[int, Iterator[tuple[str, Source]]]]:
    """The pictures of these parts, which are to be taken one after the other."""
    stream, at = pictures.read(missing[0] * PART) if missing else iter(()), missing[0] if missing else 0
    for i in missing:
        for _ in islice(stream, (i - at) * PART):
            pass
        yield i, islice(stream, PART)
        at = i + 1


def _foreign(folder: Path) -> Iterator[Path]:
    """What lies in a folder beside what a process leaves that was stopped before it had begun."""
    return (path for path in folder.iterdir() if path.name != LIST and not path.name.startswith("."))


def _check_same(file: Path, begun: Json, facts: Json) -> None:
    """Raises StoreError where the file was begun with other facts; it names the first that differs."""
    if not isinstance(begun, dict):
        raise StoreError(f"{shown(file)}.parts is damaged: its {BEGUN} is no object. Remove that folder.")
    for key, what in SAID.items():
        if begun.get(key) == facts[key]:
            continue
        folder = f"{file.name}.parts"
        how = (
            f" ({brief(begun.get(key))}, and now {facts[key]})"
            if key in ("alpha", "threshold", "part")
            else ""
        )
        if key == "pictures":
            how = (
                f" ({brief(begun.get('total'))}, and now {facts['total']}). Those that it was begun with are "
                f"listed in {shown(file.parent / folder / LIST)}, which can be scored in place of a folder"
            )
        raise StoreError(
            f"{shown(file)} was begun with {what}{how}. Run the command that it was begun with, or remove "
            f"the folder {folder} beside it to begin anew."
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; StoreError where another one holds it."""
    with held(folder, f"Another oodream process is working in {shown(folder)}. Wait for it."):
        try:
            yield
        finally:
            if not (folder / BEGUN).exists():  # refused before anything was done
                shutil.rmtree(folder)
