"""Seals: a file's hash of itself, by which a reader knows that the file is as it was written.

A seal is a mark and a hash of the whole file in which zeros stand in the hash's place. So any format that has
room for a text can hold one: JSON, the metadata of safetensors, ONNX and OpenVINO files. What has no room is
framed: the hash, then the content. Files without a seal, those of earlier versions, are read as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from .threads import mapped

__all__ = [
    "KEY",
    "UNSEALED",
    "damaged",
    "file_hash",
    "framed",
    "hash_of",
    "is_whole",
    "seal",
    "seal_file",
    "unframed",
    "with_check",
    "without_check",
]

KEY = "seal"
"""of the seal, in objects and metadata"""
MARK, DIGITS = b"oodream-seal:", 32
UNSEALED = MARK.decode() + "0" * DIGITS
"""what is written in the seal's place, for `seal` to fill"""
FRAME = b"oodream-frame:"
CHECK = "check"  # the key of a line's hash
BYTES = DIGITS // 2  # of a hash
CHUNK = 1 << 20  # bytes that are hashed at once

Data = bytes | mmap.mmap


def seal(data: bytes) -> bytes:
    """The data with its hash in the place of `UNSEALED`, which it must hold."""
    start = data.index(UNSEALED.encode()) + len(MARK)
    return data[:start] + _digest(io.BytesIO(data), start, ()) + data[start + DIGITS :]


def seal_file(file: Path, *beside: Path) -> None:
    """Seals a file that holds `UNSEALED`, or a seal; its hash also counts the files `beside` it."""
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as data:
        start = data.find(MARK) + len(MARK)
        if start < len(MARK):
            raise ValueError(f"{file} holds no place for a seal.")
        data[start : start + DIGITS] = _digest(opened, start, beside)


def is_whole(file: Path | bytes, *beside: Path, head: bool = False) -> bool:
    """Whether a file, or the bytes of one, are as they were sealed; True where there is no seal.

    With `head` the seal is looked for in the header of a safetensors file alone, for its tensors may hold
    anything. Raises OSError where a file cannot be read.
    """
    if isinstance(file, bytes):
        return _is_whole(file, io.BytesIO(file), beside, len(file))
    with file.open("rb") as opened:
        if not (size := os.fstat(opened.fileno()).st_size):
            return True
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = 8 + int.from_bytes(data[:8], "little") if head else size
            return _is_whole(data, opened, beside, end)


def file_hash(*files: Path) -> str:
    """The BLAKE2b hash of a file, or of several one behind the other: 16 bytes in hexadecimal."""
    digest = hashlib.blake2b(digest_size=BYTES)
    _update(digest, files)
    return digest.hexdigest()


def hash_of(opened: BinaryIO) -> str:
    """The `file_hash` of what is left to read of an opened file."""
    digest = hashlib.blake2b(digest_size=BYTES)
    _read_into(digest, opened)
    return digest.hexdigest()


def damaged(hashes: Iterable[tuple[Path, str | None]]) -> set[Path]:
    """Those of the files that are missing or have another hash than the one that stands beside them.

    A file that comes several times in turn is read once.
    """

    def looked_at(pair: tuple[Path, str | None]) -> tuple[Path, bool]:
        file, value = pair
        return file, not file.is_file() or file_hash(file) != value

    return {file for file, bad in mapped(looked_at, (pair for pair, _ in groupby(hashes))) if bad}


def with_check(line: Mapping[str, Any]) -> dict[str, Any]:
    """The object with a hash of what it holds, for `without_check`; it is one line among others in a file."""
    return {**line, CHECK: _check(line)}


def without_check(line: Mapping[str, Any]) -> dict[str, Any]:
    """The object as it was before `with_check`; one without a hash as it is.

    Raises ValueError for one that has changed since.
    """
    rest = {key: value for key, value in line.items() if key != CHECK}
    if CHECK in line and line[CHECK] != _check(rest):
        raise ValueError(f"it has changed since it was written; remove its {CHECK!r} where that is right")
    return rest


def framed(content: bytes) -> bytes:
    """The content behind its hash, for `unframed`."""
    return FRAME + hashlib.blake2b(content, digest_size=BYTES).digest() + content


def unframed(data: bytes) -> bytes:
    """The content that was framed, or the data where they have no frame.

    Raises ValueError for a content that is not as it was framed.
    """
    if not data.startswith(FRAME):
        return data
    at = len(FRAME) + BYTES
    if hashlib.blake2b(data[at:], digest_size=BYTES).digest() != data[len(FRAME) : at]:
        raise ValueError("its content is not what was written")
    return data[at:]


def _check(line: Mapping[str, Any]) -> str:
    text = json.dumps(line, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=BYTES // 2).hexdigest()


def _is_whole(data: Data, opened: BinaryIO, beside: Iterable[Path], end: int) -> bool:
    start = data.find(MARK, 0, min(end, len(data))) + len(MARK)
    return start < len(MARK) or data[start : start + DIGITS] == _digest(opened, start, beside)


def _digest(opened: BinaryIO, start: int, beside: Iterable[Path]) -> bytes:
    """The hash of a file with zeros at `start`, and of the files beside. It is read, for all of a mapped file
    would count as memory of this process.
    """
    opened.seek(0)
    digest = hashlib.blake2b(opened.read(start), digest_size=BYTES)
    digest.update(b"0" * DIGITS)
    opened.seek(start + DIGITS)
    _read_into(digest, opened)
    _update(digest, beside)
    return digest.hexdigest().encode()


def _read_into(digest: hashlib.blake2b, opened: BinaryIO) -> None:
    while chunk := opened.read(CHUNK):
        digest.update(chunk)


def _update(digest: hashlib.blake2b, files: Iterable[Path]) -> None:
    for file in files:
        with file.open("rb") as opened:
            _read_into(digest, opened)
