"""What a guard is beside its network and detector, as the text in its graph's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import brief
from ..core.files import parse_json
from ..core.options import is_number, is_whole
from .calibration import Guarantee
from .held_out import HeldOut
from .tails import Floats

__all__ = ["KEY", "MAX_SIZE", "Described", "check_parts", "describe", "described"]

KEY = "oodream"  # of the text among the metadata
VERSION = 1
MAX_TEXT = 64 << 20  # characters
MAX_SIZE = 1 << 13  # pixels
ROUNDING = 1e-6  # of a sum of probabilities
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
    values = parse_json(text)
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
        check_parts(**parts, guarantee=guarantee, arrays=arrays)
        return {**parts, "guarantee": guarantee, "held_out": HeldOut.from_arrays(arrays)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its description lacks something ({brief(error)})") from error


def check_parts(
    names: Sequence[str],
    size: int,
    white: float,
    threshold: float,
    guarantee: Guarantee,
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Raises ValueError, which says what is wrong, for what no guard is made of: it would flag nothing, or
    all, or fail at a picture.
    """
    rules = _rules(names, size, white, threshold, arrays) + _promises(names, guarantee, arrays["score_N"])
    if wrong := next((what for what, right in rules if not right), ""):
        raise ValueError(f"the {wrong} in its description cannot be")


def _rules(
    names: Sequence[str], size: int, white: float, threshold: float, arrays: Mapping[str, NDArray[Any]]
) -> list[tuple[str, bool]]:
    """What each part must be."""
    scores, shapes = arrays["score_N"], {array.shape for array in arrays.values()}
    return [
        ("names", all(isinstance(name, str) for name in names) and 0 < len(names) == len({*names})),
        ("size", is_whole(size) and 0 < size <= MAX_SIZE),
        ("white", is_number(white) and white >= 0),
        ("threshold", is_number(threshold)),
        ("held-out images", len(shapes) == 1 and len(scores.shape) == 1 and len(scores) > 0),
        ("held-out scores", bool(np.isfinite(scores).all() and (np.diff(scores) >= 0).all())),
        ("held-out classes", bool(np.isin(arrays["likeliest_N"], range(len(names))).all())),
        *[
            ("held-out probabilities", bool(((arrays[key] >= 0) & (arrays[key] <= 1 + ROUNDING)).all()))
            for key in ("probability_N", "above_N")
            if key in arrays
        ],
    ]


def _promises(names: Sequence[str], g: Guarantee, score_N: NDArray[Any]) -> list[tuple[str, bool]]:
    """What a guarantee must be."""
    few = g.too_few
    return [
        ("alpha", is_number(g.alpha) and 0 < g.alpha < 1),
        ("confidence", g.confidence is None or (is_number(g.confidence) and 0 < g.confidence < 1)),
        ("number of held-out images", is_whole(g.n) and g.n == len(score_N)),
        (
            "classes with too few held-out images",
            few is None
            or (isinstance(few, Mapping) and {*few} <= {*names} and all(map(is_whole, few.values()))),
        ),
    ]


def _array(name: str, items: Any) -> NDArray[Any]:
    """A vector of the numbers of a list; ValueError for anything else."""
    try:
        array = np.array(items, dtype=np.int64 if name in WHOLE else np.float64)
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"{name} in its description is no list of numbers") from error
    if array.ndim != 1:
        raise ValueError(f"{name} in its description is no list of numbers")
    return array
