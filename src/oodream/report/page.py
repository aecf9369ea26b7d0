"""The verb `report`: one self-contained HTML page from what a run made and measured.

The page loads nothing, runs no script and opens from a file. Its figures are SVG that the template draws from
path strings, so they follow the page's type and its light or dark colours. Nothing here measures: metrics
arrive as rows, pictures as tensors.
"""

from __future__ import annotations

import json

from .content import FilterCount, Report
from .figures import map_figure, score_figures
from .tables import METRICS, flagged_corruptions, headline, key_figures, measured_lines, shift_tables
from .template import render

__all__ = ["report"]

WARN_RECONSTRUCTED = 0.6
MAX_FILTER_ROWS = 40  # classes in the table of what the filters kept


def report(content: Report) -> str:
    """One HTML page as text that UTF-8 can hold; equal content gives equal text.

    Raises ValueError when no classifier is named, an image is not uint8 (3, H, W) or a score is not finite.
    """
    if not content.classifiers:
        raise ValueError("A report needs at least one classifier.")
    lines, shifts = measured_lines(content), shift_tables(content)
    names = list(content.classifiers)
    return render(
        "index.html.j2",
        r=content,
        lines=lines,
        shifts=shifts,
        flagged=flagged_corruptions(content),
        headline=headline(content, lines),
        key_figures=key_figures(content, lines),
        metrics=METRICS,
        detector=content.detector,
        base=names[0],
        final=names[-1],
        figures=score_figures(content),
        map=map_figure(content),
        filter_rows=filter_rows(content),
        config=json.dumps(content.config, indent=2, ensure_ascii=False, default=str),
        seeds=len({row.seed for row in content.rows}),
        warn_reconstructed=WARN_RECONSTRUCTED,
    )


def filter_rows(content: Report) -> dict[str, FilterCount]:
    """What the filters kept, by class; of many classes those of which they kept the smallest shares."""
    if len(content.filtered) <= MAX_FILTER_ROWS:
        return dict(content.filtered)
    rows = sorted(content.filtered.items(), key=lambda item: item[1].kept / max(1, item[1].imagined))
    return dict(rows[:MAX_FILTER_ROWS])
