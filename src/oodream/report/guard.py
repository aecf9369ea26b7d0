"""The page of a guard that was made for somebody's network: what it promises, how its detector was chosen,
what it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .content import Answer
from .figures import HEIGHT, WIDTH, sorted_scores, threshold_histogram
from .template import render

__all__ = ["GuardPage", "guard_page"]


@dataclass(frozen=True, kw_only=True)
class GuardPage:
    """All that the page shows.

    `code` are the names in the guard's folder that are code. `facts` are names and values. `candidates` are
    the detectors' rows of a table with the columns `head`, the chosen one first; `about` says on what it was
    chosen. `measured` are rows of the columns `measured_head`. `scores`, by set, are those of the held-out
    images under "held out" and of unknown ones.
    """

    title: str
    created: str
    code: Sequence[str]
    command: str
    guarantee: str
    threshold: float
    facts: Mapping[str, str]
    notes: Sequence[str]
    about: str
    head: Sequence[str]
    candidates: Sequence[Sequence[str]]
    skipped: Mapping[str, str]
    scores: Mapping[str, Tensor]
    measured_head: Sequence[str] = ()
    measured: Sequence[Sequence[str]] = ()
    answers: Sequence[Answer] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""


def guard_page(content: GuardPage) -> str:
    """One HTML page as text that UTF-8 can hold; ValueError where a score is not finite."""
    known = sorted_scores(content.scores["held out"], "held out")
    figures: dict[str, Any] = {
        name: threshold_histogram(known, sorted_scores(scores, name), content.threshold, WIDTH, HEIGHT)
        for name, scores in content.scores.items()
        if name != "held out"
    }
    return render("guard.html.j2", c=content, figures=figures, width=WIDTH, height=HEIGHT)
