"""What counts as a clear refusal, and what as a fault.

A reader may accept an input, or refuse it by an error that the library itself raises. Whatever else comes
out of it is a fault: an error of Python or of another library that nobody put into words, an error that is no
refusal (an assertion, a missing key), memory that does not suffice, and more time than an input may take.
"""

from __future__ import annotations

import linecache
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from starlette.exceptions import HTTPException

import oodream

__all__ = ["SECONDS", "fault_of"]

LIBRARY = Path(oodream.__file__).parent
REFUSALS = (
    ValueError,
    RuntimeError,
    HTTPException,
)  # DataError, ConfigError, StoreError and DecoderError are
NO_REFUSALS = (RecursionError, UnicodeError)
SECONDS = 5.0  # of the processor that one small input may take


def fault_of(read: Callable[[bytes], object], data: bytes) -> str:
    """What is wrong with how `read` treats the data: the kind of fault and its place; empty for no fault."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(data)
        except (Exception, AssertionError) as error:
            if not _is_refusal(error):
                return _place(error)
            if len(str(error)) > 20_000:
                return f"a message of {len(str(error)):,} characters at {_where(error)}"
    if (seconds := time.process_time() - began) > SECONDS:
        return f"slow: {seconds:.1f} s"
    return ""


def _is_refusal(error: BaseException) -> bool:
    """Whether the library raised this error itself, by a statement `raise`."""
    if not isinstance(error, REFUSALS) or isinstance(error, NO_REFUSALS):
        return False
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0)
    return Path(frame.filename).is_relative_to(LIBRARY) and line.lstrip().startswith("raise")


def _place(error: BaseException) -> str:
    return f"{type(error).__name__} at {_where(error)}"


def _where(error: BaseException) -> str:
    """The library's innermost function, and where another's is further in, that."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = frames[-1]
    own = next((f for f in reversed(frames) if Path(f.filename).is_relative_to(LIBRARY)), inner)
    place = f"{'/'.join(Path(own.filename).parts[-2:])}:{own.name}"
    return place if own is inner else f"{place} ({Path(inner.filename).name}:{inner.name})"
