"""Tables of answers as files: Parquet, CSV and JSON lines."""

from __future__ import annotations

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import StoreError, shown
from ..core.files import encode_json, explained, parse_json, read_framed, read_json, write_json
from ..core.options import ConfigError
from ..core.packages import missing
from ..core.sealed import file_hash
from ..runtime.answers import Prediction
from .scoring import Answer

if TYPE_CHECKING:
    from ..core.types import Json

__all__ = ["BESIDE", "COLUMNS", "Csv", "JsonLines", "Parquet", "Table", "read_part", "row_of", "table_for"]

COLUMNS = {
    "file": "string", "answer": "string", "flagged": "bool", "score": "double", "threshold": "double",
    "likeliest": "string", "probability": "double", "known": "double", "p_value": "double", "error": "string",
}  # fmt: skip
"""What is said of a picture, and its type in Parquet. All but `file` may be missing: `error` says why a
picture cannot be read, and of one that can it is missing.
"""
COUNTED = ["file", "flagged", "error"]  # columns
ROW_GROUP = 1 << 16
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # what a spreadsheet may take for one begins so
ABOUT = b"oodream"  # a key of a Parquet file's metadata
BESIDE = ".about.json"
"""what stands behind a table's name in that of the file beside it that says what it is about, where its
format has no room for that
"""


class Table(Protocol):
    """A file format of tables."""

    suffix: str

    def encode(self, rows: Sequence[Json]) -> bytes:
        """A file of some rows."""
        ...

    def decode(self, data: bytes) -> list[Json]:
        """The rows of a file that `encode` made; ValueError or OSError where it is damaged."""
        ...

    def join(self, parts: Sequence[Path], file: Path, about: Json) -> None:
        """Writes the rows of all parts in order, whole or not at all, a few parts at a time; and what they
        are about, for `joined`.

        Parts are framed files (see `core.files.write_framed`). Raises StoreError for one that is damaged.
        """
        ...

    def joined(self, file: Path, about: Json) -> Iterator[Sequence[Json]] | None:
        """The rows of a file that `join` wrote about the same, some at a time, each with what is counted of
        it; None for another file.
        """
        ...


def row_of(name: str, answer: Answer) -> Json:
    """What a table says of a picture."""
    row: Json = dict.fromkeys(COLUMNS)
    if isinstance(answer, Prediction):
        row |= {key: getattr(answer, key) for key in row if hasattr(answer, key)}
    else:
        row["error"] = answer
    return row | {"file": name}


def table_for(file: Path) -> Table:
    """The format that a file's suffix asks for.

    Raises ConfigError for another suffix, and where the package that writes the format is missing.
    """
    if file.suffix in (".jsonl", ".ndjson"):
        return JsonLines()
    if file.suffix == ".csv":
        return Csv()
    if file.suffix != ".parquet":
        raise ConfigError(
            f"Results end in .parquet, .csv or .jsonl (JSON lines), and {shown(file.name)} in none of these."
        )
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{missing('Parquet', 'pyarrow', 'hub')}. JSON lines (.jsonl) and .csv need none."
        ) from error
    return Parquet()


def read_part(table: Table, part: Path) -> list[Json]:
    """The rows of a part; StoreError, which names it, where it is damaged."""
    with _named(part):
        return table.decode(read_framed(part))


class Parquet:
    suffix = ".parquet"

    def encode(self, rows: Sequence[Json]) -> bytes:
        import pyarrow
        import pyarrow.parquet

        rows = [
            row | {key: _storable(value) for key, value in row.items() if isinstance(value, str)}
            for row in rows
        ]
        buffer = BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()), buffer)
        return buffer.getvalue()

    def decode(self, data: bytes) -> list[Json]:
        import pyarrow.parquet

        return _rows(pyarrow.parquet.read_table(BytesIO(data)).to_pylist())

    def join(self, parts: Sequence[Path], file: Path, about: Json) -> None:
        import pyarrow
        import pyarrow.parquet

        schema = _schema().with_metadata({ABOUT: encode_json(about)})
        with _whole(file) as fresh, pyarrow.parquet.ParquetWriter(fresh, schema) as writer:
            group: list[pyarrow.Table] = []
            for i, part in enumerate(parts, 1):
                with _named(part):
                    table = pyarrow.parquet.read_table(BytesIO(read_framed(part)))
                group.append(table.replace_schema_metadata(schema.metadata))
                if i == len(parts) or sum(map(len, group)) >= ROW_GROUP:
                    writer.write_table(pyarrow.concat_tables(group))
                    group.clear()

    def joined(self, file: Path, about: Json) -> Iterator[Sequence[Json]] | None:
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.ParquetFile(file)
        except (OSError, pyarrow.ArrowInvalid):
            return None
        if (table.schema_arrow.metadata or {}).get(ABOUT) != encode_json(about):
            return None
        return (batch.to_pylist() for batch in table.iter_batches(ROW_GROUP, columns=COUNTED))


class _Lines(ABC):
    """A format of text: a `head`, and then rows that end in a newline. What a table is about stands beside
    its file.
    """

    suffix: str
    head = b""

    @abstractmethod
    def line(self, row: Json) -> bytes:
        """A row, without its newline."""

    @abstractmethod
    def parsed(self, lines: Iterable[str]) -> Iterator[Json]:
        """The rows of a file's lines, which end in newlines; ValueError where they are damaged."""

    def encode(self, rows: Sequence[Json]) -> bytes:
        return self.head + b"".join(self.line(row) + b"\n" for row in rows)

    def decode(self, data: bytes) -> list[Json]:
        return _rows(list(self.parsed(StringIO(data.decode(), newline="\n"))))

    def join(self, parts: Sequence[Path], file: Path, about: Json) -> None:
        with _whole(file) as fresh, fresh.open("wb") as target:
            target.write(self.head)
            for part in parts:
                target.write(read_framed(part)[len(self.head) :])
        write_json(_beside(file), _of_file(file, about), sealed=True)

    def joined(self, file: Path, about: Json) -> Iterator[Sequence[Json]] | None:
        try:
            if read_json(_beside(file)) != _of_file(file, about):
                return None
        except (OSError, StoreError):  # it is missing or damaged
            return None
        return self._in_groups(file)

    def _in_groups(self, file: Path) -> Iterator[list[Json]]:
        """The rows of a file, some at a time."""
        with file.open(encoding="utf-8", newline="\n") as lines:  # \n alone ends one: names hold any other
            rows = self.parsed(lines)
            while some := list(islice(rows, ROW_GROUP)):
                yield some


class JsonLines(_Lines):
    suffix = ".jsonl"

    def line(self, row: Json) -> bytes:
        return encode_json(row)

    def parsed(self, lines: Iterable[str]) -> Iterator[Json]:
        return map(parse_json, lines)


class Csv(_Lines):
    """Columns as in the other formats, by name in the first line: numbers, true and false as in JSON, texts
    in quotes, and nothing where a value is missing.

    Who names a picture does not write into the spreadsheet of who opens the table: a text that would be taken
    for a formula stands behind an apostrophe, a file's path behind "./", where it is as good.
    """

    suffix = ".csv"
    head = ",".join(COLUMNS).encode() + b"\n"

    def line(self, row: Json) -> bytes:
        return ",".join(_cell(name, row[name]) for name in COLUMNS).encode()

    def parsed(self, lines: Iterable[str]) -> Iterator[Json]:
        try:
            cells = csv.reader(lines, strict=True)
            if next(cells, None) != [*COLUMNS]:
                raise ValueError("its first line does not name the columns")
            for row in cells:
                pairs = zip(COLUMNS.items(), row, strict=True)
                yield {name: _of_cell(kind, cell) for (name, kind), cell in pairs}
        except csv.Error as error:
            raise ValueError(str(error)) from error


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return encode_json(value).decode()
    text = _storable(value)
    if text.startswith(FORMULA):
        text = ("./" if name == "file" else "'") + text
    return '"' + text.replace('"', '""') + '"'


def _of_cell(kind: str, cell: str) -> Any:
    if kind == "string":
        return cell or None
    return parse_json(cell) if cell else None


def _beside(file: Path) -> Path:
    return file.with_name(file.name + BESIDE)


def _of_file(file: Path, about: Json) -> Json:
    """What a table is about, and the hash of its file, which is so bound to it."""
    return {**about, "hash": file_hash(file)}


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the file's place when the block ends well, and else vanishes."""
    fresh = file.with_name(f".{file.name}.new")
    with explained(file):
        try:
            yield fresh
            with fresh.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(fresh, file)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def _named(part: Path) -> Iterator[None]:
    """Within the block, whatever a damaged part raises becomes a StoreError that names it."""
    try:
        yield
    except (ValueError, OSError, TypeError, KeyError, NotImplementedError, MemoryError) as error:  # pyarrow's
        raise StoreError(
            f"{shown(part)} is damaged ({error}). Remove it and run the same command again."
        ) from error


def _rows(rows: list[Any]) -> list[Json]:
    """The rows; ValueError where one is none of `row_of`."""
    for number, row in enumerate(rows, 1):
        whole = isinstance(row, dict) and {*COLUMNS} <= row.keys() and isinstance(row["file"], str)
        if not whole or not isinstance(row["error"], (str, type(None))):
            raise ValueError(f"its row {number} is no answer")
    return rows


def _storable(text: str) -> str:
    """The text, or where it holds bytes that are no UTF-8 what `shown` makes of it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return shown(text)
    return text


def _schema():  # type: ignore[no-untyped-def]
    import pyarrow

    return pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])
