"""From a request's body to the squares that a network takes, with no client's pictures in another's way.

Bytes are untrusted here: how many pictures there are, and how many pixels they have, is known before any of
them is decoded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from io import BytesIO
from typing import Any, TypeVar

import anyio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

from ...core.errors import listed
from ...runtime.formats import HEAD, unread_format
from .limits import Limits
from .schema import Images

__all__ = ["File", "Reader", "Turns", "files_in"]

FORMATS = frozenset("AVIF BMP DIB GIF JPEG MPO PNG PPM TIFF WEBP".split())
MAX_SCANS, USUAL_SCANS = 25, 10  # of a progressive JPEG; every one is a pass over all pixels
SMALL = 4_000_000  # pixels, or bytes: larger pictures are read in a place of their own
HEADERS = 8  # lines above one file of a form
T = TypeVar("T")


@dataclass(frozen=True)
class File:
    """An image file of a request, and its name there, which may be empty."""

    name: str
    content: bytes


# Bodies


def files_in(body: bytes, content_type: str, at_most: int) -> list[File]:
    """The image files in a body: those of a form, those in JSON, or the body itself.

    Raises HTTPException for another type, a body that is not what it says, and more than `at_most` files.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        files = _files_in_form(body, options.get(b"boundary", b""), at_most)
    elif kind == b"application/json":
        files = _files_in_json(body, at_most)
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        files = [File("", body)]
    else:
        raise HTTPException(
            415, "Send image files as multipart/form-data, as base64 in application/json, or one as image/…."
        )
    if not files:
        raise HTTPException(422, "There is no picture in the request.")
    return files


def _files_in_form(body: bytes, boundary: bytes, at_most: int) -> list[File]:
    # Counted first, for the parser takes its time over whatever begins as a boundary does.
    if body.count(b"\r\n--" + boundary) > at_most + 1:
        raise _too_many(at_most)
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks(), max_header_count=HEADERS)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise HTTPException(400, f"The form is damaged: {error}.") from error
    if not form.ended:
        raise HTTPException(400, "The form is damaged: it has no end.")
    if len(form.files) > at_most:
        raise _too_many(at_most)
    return form.files


@dataclass
class _Form:
    """The files of a form, as its parser comes upon them."""

    files: list[File] = field(default_factory=list)
    ended: bool = False
    _header: bytes = b""
    _disposition: bytes = b""
    _value: bytes = b""
    _content: list[bytes] = field(default_factory=list)

    def callbacks(self) -> Any:
        return {f"on_{name}": getattr(self, f"_{name}") for name in _EVENTS}

    def _part_begin(self) -> None:
        self._disposition, self._content = b"", []

    def _header_begin(self) -> None:
        self._header, self._value = b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            name = options.get(b"name", b"").decode("utf-8", "replace")
            raise ValueError(
                f"{name!r} is no file; alpha and candidates belong in the address, as ?alpha=0.01"
            )
        self.files.append(File(options[b"filename"].decode("utf-8", "replace"), b"".join(self._content)))

    def _end(self) -> None:
        self.ended = True


_EVENTS = (
    "part_begin",
    "header_begin",
    "header_field",
    "header_value",
    "header_end",
    "part_data",
    "part_end",
    "end",
)


def _files_in_json(body: bytes, at_most: int) -> list[File]:
    if body.count(b",") >= 2 * at_most:  # base64 has none, and what may stand before it has one
        raise _too_many(at_most)
    try:
        texts = Images.model_validate_json(body).images
    except ValidationError as error:
        raise HTTPException(422, _in_words(error)) from error
    if len(texts) > at_most:
        raise _too_many(at_most)
    files = []
    for i, text in enumerate(texts):
        try:
            files.append(File("", base64.b64decode(_without_head(text), validate=True)))
        except (binascii.Error, ValueError) as error:
            raise HTTPException(422, f"Picture {i} is no base64: {error}.") from error
    return files


def _without_head(text: str) -> str:
    """The base64 in a text, which may be a data URL (RFC 2397), as browsers have it."""
    head, comma, content = text.partition(",")
    return content if comma and head.startswith("data:") and head.endswith(";base64") else text


def _in_words(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, problem["loc"]))
    form = 'The JSON is {"images": ["base64", …]}'
    return f"{form}: {where}{': ' if where else ''}{problem['msg']}."


def _too_many(at_most: int) -> HTTPException:
    return HTTPException(413, f"A request has at most {at_most} pictures.")


# Pictures


class Turns:
    """Lends places to pictures that are to be read, so that every request has as much of them as any other.

    Self-clocked fair queueing (Golestani 1994): the clock runs with what is read, in pixels. A picture
    is due as many later than its request came as that has up to its end.
    """

    def __init__(self, places: int) -> None:
        self._free, self._clock, self._count = places, 0.0, itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, pixels: float) -> AsyncIterator[None]:
        """A place, as long as the block lasts, for a picture that ends so many pixels into its request."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._clock + pixels)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, due: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (due, next(self._count), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # its turn had just come
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            due, _, future = heappop(self._waiting)
            if not future.done():
                self._clock = max(self._clock, due)
                future.set_result(None)
                return
        self._free += 1


@dataclass(kw_only=True)
class Reader:
    """Makes squares (B, S, S, 3) of bodies, a few pictures at once.

    `read` makes a square (S, S, 3) of an image file's bytes, and raises OSError where it cannot. Large
    pictures have one place, small ones others, so these never wait for those.
    """

    read: Callable[[bytes], NDArray[np.uint8]]
    limits: Limits
    places: int

    def __post_init__(self) -> None:
        self._small, self._large = Turns(self.places), Turns(1)
        self._threads = anyio.CapacityLimiter(self.places + 1)

    async def squares(self, body: bytes, content_type: str) -> tuple[list[str], NDArray[np.uint8]]:
        """The names of a body's files, which may be empty, and their squares, in order.

        Raises HTTPException for what is refused or cannot be read; it names all such files.
        """
        files, costs = await self._in_turn(len(body), len(body), partial(self._opened, body, content_type))
        after = itertools.accumulate(costs)
        squares: list[NDArray[np.uint8] | str] = [""] * len(files)

        async def read_one(i: int, after: float) -> None:
            squares[i] = await self._in_turn(costs[i], after, partial(self._square, files[i].content))

        async with anyio.create_task_group() as tasks:
            for i, cost in enumerate(after):
                tasks.start_soon(read_one, i, cost)
        _check(files, squares)
        return [file.name for file in files], np.stack(squares)

    def _opened(self, body: bytes, content_type: str) -> tuple[list[File], list[float]]:
        """A body's files, and what it costs to read each, in pixels."""
        files = files_in(body, content_type, self.limits.max_pictures)
        costs = [_cost(file.content, self.limits) for file in files]
        _check(files, costs)
        return files, [cost for cost in costs if not isinstance(cost, str)]

    def _square(self, content: bytes) -> NDArray[np.uint8] | str:
        """The square, or why there is none."""
        try:
            return self.read(content)
        except OSError as error:
            return f"cannot be read: {str(error).rstrip('.')}"

    async def _in_turn(self, cost: float, after: float, work: Callable[[], T]) -> T:
        turns = self._small if cost <= SMALL else self._large
        async with turns.turn(after):
            return await anyio.to_thread.run_sync(work, limiter=self._threads)


def _cost(content: bytes, limits: Limits) -> float | str:
    """What it costs to read a picture, in pixels; or why it is refused."""
    try:
        with Image.open(BytesIO(content)) as image:
            kind, pixels = image.format, image.width * image.height
    except UnidentifiedImageError:
        reason = unread_format(content[:HEAD], "")
        return f"is no picture: {reason}" if reason else "is no picture"
    except Image.DecompressionBombError:  # beyond Pillow's bound, which is above any of a server
        return f"has more than the {limits.max_megapixels:g} million pixels that it may have"
    except Exception:  # on damaged bytes Pillow's readers raise nearly anything; reading it says why
        return len(content)
    if kind not in FORMATS:
        return f"is {kind}; the server reads {', '.join(sorted(FORMATS))}"
    if pixels > limits.pixels:
        return f"has {pixels / 1e6:.1f} million pixels, and may have {limits.max_megapixels:g}"
    scans = content.count(b"\xff\xda") if kind in ("JPEG", "MPO") else 1
    if scans > MAX_SCANS:
        return f"is a JPEG of {scans} scans, and may have {MAX_SCANS}"
    return max(len(content), pixels * scans / USUAL_SCANS, pixels)


def _check(files: list[File], results: Sequence[object]) -> None:
    """HTTPException where results are the reasons why their files are refused."""
    problems = [
        f"{_called(files, i)} {result}" for i, result in enumerate(results) if isinstance(result, str)
    ]
    if problems:
        raise HTTPException(422, listed(problems, "; ") + ".")


def _called(files: list[File], i: int) -> str:
    """What a file is called: by its number, unless it is the only one and has a name."""
    name = files[i].name
    if len(files) == 1 and name:
        return name
    return f"Picture {i} ({name})" if name else f"Picture {i}"
