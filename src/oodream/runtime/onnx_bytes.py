"""Whether an ONNX file is whole in itself, by its bytes: without the package onnx, before anything runs it.

A tensor may say that its values lie in another file. Programs that run graphs have followed such names out of
the graph's folder, so files that somebody hands over are refused where a tensor does. Messages and numbers of
fields are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

__all__ = ["check_whole", "check_whole_file"]

KEY = b"location"  # of the entry that names another file: without it there is none
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # fields of a tensor
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""by kind of message, which kinds its fields hold, as far as tensors may lie in them"""
VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5  # wire types


def check_whole_file(file: Path) -> None:
    """`check_whole` of a file, which is not read into memory."""
    if not file.stat().st_size:
        raise ValueError("it is empty")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(KEY) >= 0:
            with memoryview(content) as view:
                _check(view)


def check_whole(content: bytes) -> None:
    """Raises ValueError for an ONNX file whose tensors lie in other files, or that is damaged."""
    if KEY in content:
        _check(memoryview(content))


def _check(content: memoryview) -> None:
    pending: list[tuple[str, int, int]] = [("model", 0, len(content))]
    while pending:
        kind, start, stop = pending.pop()
        for number, wire, at, end in _fields(content, start, stop):
            if kind == "tensor" and number in (EXTERNAL_DATA, DATA_LOCATION) and any(content[at:end]):
                raise ValueError("values of its tensors lie in other files, and only whole graphs are read")
            if wire == LENGTH and (inner := INSIDE[kind].get(number)):
                pending.append((inner, at, end))


def _fields(content: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: their number, wire type, and where their values begin and end."""
    at = start
    while at < stop:
        tag, at = _varint(content, at, stop)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            _, end = _varint(content, at, stop)
        elif wire == LENGTH:
            length, at = _varint(content, at, stop)
            end = at + length
        elif wire in (EIGHT, FOUR):
            end = at + (8 if wire == EIGHT else 4)
        else:
            raise ValueError("it is no ONNX file")
        if end > stop:
            raise ValueError("it is cut short")
        yield number, wire, at, end
        at = end


def _varint(content: memoryview, at: int, stop: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for i in range(10):
        if at + i >= stop:
            raise ValueError("it is cut short")
        byte = content[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError("it is no ONNX file")
