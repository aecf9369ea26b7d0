"""Files: text and JSON as people and programs write them, and writing that is whole or absent.

Nothing here knows what a file is for.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import secrets
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StoreError, shown
from .sealed import KEY, UNSEALED, framed, is_whole, seal, unframed

__all__ = [
    "ASSETS",
    "MAX_JSON",
    "MAX_TOML",
    "atomic_file",
    "atomic_folder",
    "decode_text",
    "encode_json",
    "explained",
    "fresh_folder",
    "json_lines",
    "make_folder",
    "parse_json",
    "parse_toml",
    "read_bytes",
    "read_framed",
    "read_json",
    "read_json_lines",
    "read_text",
    "sweep",
    "write_bytes",
    "write_framed",
    "write_json",
]

ASSETS = Path(__file__).parents[1] / "assets"
RUST_ERROR = re.compile(r"\(os error (\d+)\)")
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}", re.S)  # as `_beside` names what is being written
MAX_TEXT = 1 << 30  # bytes of a text that is read whole: twenty million lines of a list
MAX_JSON = 64 << 20  # of a file that is one JSON value
MAX_TOML = 2 << 20  # of a file that people write: its reader is slow


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Within the block, a full disk, a missing permission and a path that the system does not take become a
    StoreError that says what to do.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _number_in(str(error))
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            full = "A limit on file sizes is reached" if number == errno.EFBIG else "The disk is full"
            raise StoreError(
                f"{full} at {shown(path)}. Free some room and run the same command again."
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP):
            raise StoreError(
                f"{shown(path)} cannot be written ({os.strerror(number)}). "
                "Choose another folder or mend its permissions."
            ) from error
        raise


def _number_in(text: str) -> int:
    """The system's number of an error that a library in Rust (safetensors, tokenizers) tells of; else 0."""
    match = RUST_ERROR.search(text)
    return int(match[1]) if match else 0


# Text and JSON


def decode_text(data: bytes) -> str:
    """Text in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises UnicodeDecodeError, a ValueError, for anything else.
    """
    return data.decode(_encoding(data))


def _encoding(start: bytes) -> str:
    """The encoding of text that begins with these bytes."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file, or of what else can be opened; ValueError where there are more than `limit`.

    Without a limit a link to a device without an end would take all memory.
    """
    chunks, left = [], limit
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            chunks.append(chunk)
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"it has more than {limit:,} bytes")
    return b"".join(chunks)


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The text of a file, as `decode_text` reads it; line ends stay as they are.

    Raises ValueError for a file of more than `limit` bytes, and one that is no text.
    """
    return decode_text(read_bytes(path, limit))


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError, in words, for anything else, for one of a thousand levels, and
    for a key that is there twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; ValueError, in words, for anything else, and for a thousand levels."""
    if len(text) > MAX_TOML:
        raise ValueError(f"it has more than {MAX_TOML:,} characters")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no TOML: {error}") from error


def json_lines(path: Path, parse: Callable[[str], Any] | None = None) -> Iterator[Any]:
    """The values of a file with one JSON value a line, or what `parse` makes of the lines that are not blank;
    one line after the other is read.

    A line ends at \\n alone: strings of JSON may hold U+2028, U+2029 and U+0085, where `str.splitlines` cuts.
    Raises ValueError where a line is no JSON, and for a file that `read_text` refuses, and what `parse`
    raises.
    """
    left = MAX_TEXT
    with path.open("rb") as file:
        encoding = _encoding(file.peek(2))
        with io.TextIOWrapper(file, encoding, newline="\n") as text:
            while line := text.readline(left + 1):
                left -= len(line)
                if left < 0:
                    raise ValueError(f"it has more than {MAX_TEXT:,} characters")
                if line.strip():
                    yield (parse or parse_json)(line.removesuffix("\n"))


def read_json_lines(path: Path, parse: Callable[[str], Any] | None = None) -> list[Any]:
    """All that `json_lines` gives."""
    return list(json_lines(path, parse))


def read_json(path: Path, again: str = "Remove it and run the same command again.") -> Any:
    """Reads JSON, an object without its seal; StoreError names the file when it is damaged, and says how it
    comes about `again`.
    """
    try:
        value = parse_json(decode_text(data := read_bytes(path, MAX_JSON)))
        if isinstance(value, dict) and value.pop(KEY, "") and not is_whole(data):
            raise ValueError("its content is not what was written")
        return value
    except ValueError as error:
        raise StoreError(f"{shown(path)} is damaged ({error}). {again}") from error


def encode_json(value: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8, on one line or indented.

    Half characters, which stand in file names for bytes that are no UTF-8, are written as JSON's escapes.
    """
    return json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any, sealed: bool = False) -> None:
    """Writes JSON, indented, whole or not at all. An object may be `sealed`: then `read_json` knows whether
    it has changed since.
    """
    data = encode_json({**value, KEY: UNSEALED} if sealed else value, indent=2) + b"\n"
    write_bytes(path, seal(data) if sealed else data)


def write_framed(path: Path, content: bytes) -> None:
    """Writes bytes behind their hash, whole or not at all, for `read_framed`."""
    write_bytes(path, framed(content))


def read_framed(path: Path) -> bytes:
    """The bytes that `write_framed` wrote; StoreError names the file where they are damaged."""
    try:
        return unframed(path.read_bytes())
    except ValueError as error:
        raise StoreError(
            f"{shown(path)} is damaged ({error}). Remove it and run the same command again."
        ) from error


# Whole or absent


def write_bytes(path: Path, data: bytes | Iterable[bytes], sync: bool = True) -> None:
    """Writes a whole file or nothing, by rename; its permissions are those that the umask leaves.

    Parts of its content are written as they come. Without `sync` a power cut (not a kill) may leave the file
    empty.
    """
    with explained(path):
        make_folder(path.parent)
        fresh = _beside(path)
        try:
            with fresh.open("xb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Where a library is to write a file, which takes `path`'s place when the block ends well, and else
    vanishes with all that the library had beside it. Its permissions are those that the umask leaves.
    """
    with explained(path):
        make_folder(fresh := _beside(path))
        try:
            yield (file := fresh / path.name)
            file.chmod(fresh.stat().st_mode & 0o666)
            with file.open("rb+") as written:
                os.fsync(written.fileno())
            os.replace(file, path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to fill, which takes `path`'s place when the block ends well, and else vanishes."""
    with explained(path):
        make_folder(fresh := _beside(path))
        try:
            yield fresh
            if path.exists():
                shutil.rmtree(path)
            os.replace(fresh, path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """As `atomic_folder`, where nothing is in the way; StoreError for a folder that holds something."""
    check_new(path)
    with atomic_folder(path) as fresh:
        yield fresh


def make_folder(folder: Path) -> None:
    """Makes a folder, with those above it, unless it is there; StoreError where it cannot be made."""
    with explained(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            check_way(folder)
            raise _not_made(folder, error) from error


def _not_made(folder: Path, error: OSError) -> StoreError:
    why = os.strerror(error.errno or 0)
    return StoreError(f"The folder {shown(folder)} cannot be made ({why}). Choose another place.")


def check_new(folder: Path) -> None:
    """Raises StoreError where no new folder can be made: one that holds something is there, or a file, or
    nothing can be written there.
    """
    check_way(folder)
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{shown(folder)} holds something already. Choose another folder, or empty it.")


def check_way(folder: Path) -> None:
    """Raises StoreError where a folder could not be made, or nothing be written into it. Leaves no trace."""
    with explained(folder):
        there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
        if not there.is_dir():
            what = "a file" if there.exists() else "a link to nothing"
            raise StoreError(f"{shown(there)} is {what}, and no folder. Choose another place.")
        try:
            tempfile.TemporaryFile(dir=there).close()
        except FileNotFoundError as error:  # where the system alone makes folders, as below /proc
            raise _not_made(folder, error) from error


def sweep(folder: Path) -> None:
    """Removes what killed processes have left half-written below a folder, in which nobody else writes."""
    for path in [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A hidden path next to this one that nothing has yet."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
