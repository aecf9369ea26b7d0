"""What a guard is beside its network and detector, as the text in its graph's metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .calibration import Guarantee
from .held_out import HeldOut
from .tails import Floats

__all__ = ["KEY", "Described", "describe", "described"]

KEY = "oodream"  # of the text among the metadata
VERSION = 1
MAX_TEXT = 64 << 20  # characters
MAX_SIZE = 1 << 13  # pixels
WHOLE = ("likeliest_N", "rank_N")  # arrays of whole numbers


class Described(Protocol):
    """A guard, of which a description tells."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def size(self) -> int: ...

    @property
    def white(self) -> float: ...

    @property
    def threshold(self) -> float: ...

    @property
    def threshold_C(self) -> Floats: ...

    @property
    def per_class(self) -> bool: ...

    @property
    def guarantee(self) -> Guarantee: ...

    @property
    def held_out(self) -> HeldOut: ...


def describe(guard: Described) -> str:
    """Class names, size, white, threshold, guarantee, and what is kept of the held-out images, as JSON."""
    return json.dumps(
        {
            "version": VERSION,
            "names": guard.names,
            "size": guard.size,
            "white": guard.white,
            "threshold": guard.threshold,
            "guarantee": asdict(guard.guarantee),
            "held_out": {name: array.tolist() for name, array in guard.held_out.arrays().items()},
        }
    )


def described(text: str) -> dict[str, Any]:
    """By their names, the parts of a guard that `describe` told of.

    Raises ValueError, which says what is wrong, for any other text.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"its description has more than {MAX_TEXT:,} characters")
    values = json.loads(text)
    try:
        if (version := values["version"]) != VERSION:
            raise ValueError(f"its description is of version {version!r}, and {VERSION} is read here")
        arrays = {name: _array(name, items) for name, items in values["held_out"].items()}
        guarantee = Guarantee(**values["guarantee"])
        parts = {
            "names": tuple(values["names"]),
            "size": values["size"],
            "white": values["white"],
            "threshold": values["threshold"],
        }
        if wrong := next(
            (what for what, right in _rules(**parts, g=guarantee, arrays=arrays) if not right), ""
        ):
            raise ValueError(f"the {wrong} in its description cannot be")
        return {**parts, "guarantee": guarantee, "held_out": HeldOut.from_arrays(arrays)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its description lacks something ({error!r})") from error


def _rules(
    names: tuple[str, ...],
    size: int,
    white: float,
    threshold: float,
    g: Guarantee,
    arrays: dict[str, NDArray[Any]],
) -> list[tuple[str, bool]]:
    """What each part must be."""
    scores, lengths = arrays["score_N"], {len(array) for array in arrays.values()}
    return [
        ("names", bool(names) and all(isinstance(name, str) for name in names)),
        ("size", isinstance(size, int) and 0 < size <= MAX_SIZE),
        ("white", 0 <= white < np.inf),
        ("threshold", bool(np.isfinite(threshold))),
        ("alpha", 0 < g.alpha < 1),
        ("confidence", g.confidence is None or 0 < g.confidence < 1),
        ("held-out images", len(lengths) == 1 and all(lengths)),
        ("held-out scores", bool(np.isfinite(scores).all() and (np.diff(scores) >= 0).all())),
        ("held-out classes", bool(np.isin(arrays["likeliest_N"], range(len(names))).all())),
    ]


def _array(name: str, items: Any) -> NDArray[Any]:
    """A vector of the numbers of a list; ValueError for anything else."""
    array = np.array(items, dtype=np.int64 if name in WHOLE else np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} in its description is no list of numbers")
    return array
