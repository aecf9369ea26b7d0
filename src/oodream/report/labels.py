"""Where the names of classes stand on a picture: near their points, and not on one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Label", "place_labels"]

LETTER = 15  # the width of a wide letter, as phones have it
ABOVE, BELOW = 20, 6  # what a line of text takes above its baseline and below, as phones have it
DIRECTIONS = 16  # in which a label may stand off its point


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text for a point, whose `anchor` ("start", "middle" or "end") lies at x and whose baseline at y."""

    text: str
    point: tuple[float, float]
    x: float
    y: float
    anchor: str
    moved: bool
    """whether it stands off its point"""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What the text covers at most: left, top, right, bottom."""
        wide = LETTER * len(self.text)
        left = self.x - {"start": 0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, self.y - ABOVE, left + wide, self.y + BELOW


def place_labels(
    points: Sequence[tuple[float, float]], texts: Sequence[str], width: float, height: float
) -> list[Label]:
    """A label for each point, one after the other: at the point, or else at the nearest place where it covers
    no earlier one. Where there is no such place it stands where it covers the least of them.
    """
    labels: list[Label] = []
    for point, text in zip(points, texts, strict=True):
        best, least = None, math.inf
        for label in _places(point, text, width, height):
            covered = sum(_shared(label.box, other.box) for other in labels)
            if covered < least:
                best, least = label, covered
            if not covered:
                break
        assert best is not None  # the point itself is a place
        labels.append(best)
    return labels


def _places(point: tuple[float, float], text: str, width: float, height: float) -> Iterator[Label]:
    """Labels at the point, then on ever wider circles around it, as far as they lie on the picture."""

    def label(x: float, y: float, moved: bool) -> Label:
        x, y = round(x, 1), round(y, 1)
        return Label(text=text, point=point, x=x, y=y, anchor=_anchor(x, text, width), moved=moved)

    yield label(point[0], min(max(point[1], ABOVE), height - BELOW), False)
    step = (ABOVE + BELOW) / 2
    for ring in range(1, math.ceil(math.hypot(width, height) / step)):
        for i in range(DIRECTIONS):
            turn = 2 * math.pi * i / DIRECTIONS
            x, y = point[0] + ring * step * math.cos(turn), point[1] + ring * step * math.sin(turn)
            if 0 <= x <= width and ABOVE <= y <= height - BELOW:
                yield label(x, y, True)


def _anchor(x: float, text: str, width: float) -> str:
    """Which part of a text lies at x, so that it does not leave the picture: its "middle" where there is room
    on both sides, else its "start" or its "end".
    """
    half = LETTER * len(text) / 2
    return "end" if x > max(width - half, width / 2) else "start" if x < half else "middle"


def _shared(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The area that two boxes share."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(across, 0.0) * max(down, 0.0)
