"""How the inputs of a stage differ from those that it was made from: for programs, and in words."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["differences", "in_words"]

HASH = re.compile("(?:[0-9a-f]{16}){1,4}")
NEW, GONE, OTHER = "new", "gone", "not the same"
IMAGES = {
    "images": "the training images", "test": "the test images", "real": "the real outliers",
    "added": "the outliers that people added",
}  # fmt: skip
"""What the hashes of images among the inputs are of."""
SET = "sets."  # begins the names of hashes of other image sets


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """Where two JSON values differ, as "path: old -> new", long values cut short; of hashes, and of lists
    with some, "path: new", "path: gone" or "path: not the same".
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{at}.{k}" if at else k)]
    if old == new:
        return []
    if _has_hash(old) or _has_hash(new):
        return [f"{at}: {NEW if old is None else GONE if new is None else OTHER}"]
    return [f"{at}: {_short(old)} -> {_short(new)}"]


def in_words(difference: str) -> str:
    """One of the `differences`, as a person says it where it is about images."""
    at, _, how = difference.rpartition(": ")
    if at.startswith(SET) and how in (NEW, GONE, OTHER):
        said = {NEW: "is new", GONE: "was given before, and is not now", OTHER: "is not the same"}
        return f"the image set {at.removeprefix(SET)} {said[how]}"
    if at in IMAGES and how in (NEW, GONE, OTHER):
        said = {NEW: "are new", GONE: "were given before, and are not now", OTHER: "are not the same"}
        return f"{IMAGES[at]} {said[how]}"
    return difference


def _has_hash(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and HASH.fullmatch(one) for one in values)


def _short(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)}"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
