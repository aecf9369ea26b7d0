"""The verb `report`: one self-contained HTML page from what a run made and measured.

The page loads nothing, runs no script and opens from a file. Its figures are SVG that the template draws from
path strings made here, so they follow the page's type and its light or dark colours. Nothing here measures:
metrics arrive as rows, pictures as tensors. Names, prompts and file names come from users, so the template
escapes everything.
"""

from __future__ import annotations

import base64
import io
import json

import jinja2
import torch
from PIL import Image

from ..core.files import ASSETS
from .content import FilterCount, Report
from .figures import map_figure, score_figures
from .tables import METRICS, headline, key_figures, measured_lines, shift_tables, summarize_shifts

__all__ = ["report", "thumbnail"]

TEMPLATES = ASSETS / "report"
THUMBNAIL = 128
EXACT = 64  # pixels a side up to which a picture is kept to the bit
QUALITY = 85  # of WebP, for larger ones
WARN_RECONSTRUCTED = 0.6
MAX_FILTER_ROWS = 40  # classes in the table of what the filters kept


def report(content: Report) -> str:
    """One HTML page as text that UTF-8 can hold; equal content gives equal text.

    Raises ValueError when no classifier is named, an image is not uint8 (3, H, W) or a score is not finite.
    """
    if not content.classifiers:
        raise ValueError("A report needs at least one classifier.")
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (thumbnail, duration, percent, signed, number, hue)}
    lines, shifts = measured_lines(content), shift_tables(content)
    names = list(content.classifiers)
    page = environment.get_template("index.html.j2").render(
        r=content,
        lines=lines,
        shifts=shifts,
        flagged={name: summarize_shifts(content.shifts, name, "flagged") for name in names if shifts},
        headline=headline(content, lines, shifts),
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
    # File names that are not UTF-8 reach Python as lone surrogates, which no file could hold.
    return page.encode("utf-8", "backslashreplace").decode()


def filter_rows(content: Report) -> dict[str, FilterCount]:
    """What the filters kept, by class; of many classes those of which they kept the smallest shares."""
    if len(content.filtered) <= MAX_FILTER_ROWS:
        return dict(content.filtered)
    rows = sorted(content.filtered.items(), key=lambda item: item[1].kept / max(1, item[1].imagined))
    return dict(rows[:MAX_FILTER_ROWS])


# Filters of the template


def thumbnail(image_3HW: torch.Tensor) -> str:
    """A data URI of the image, at most THUMBNAIL pixels a side: PNG up to EXACT pixels, WebP above."""
    if image_3HW.dtype != torch.uint8 or image_3HW.ndim != 3 or image_3HW.shape[0] != 3:
        raise ValueError(f"An image must be uint8 (3, H, W), not {image_3HW.dtype} {tuple(image_3HW.shape)}.")
    picture = Image.fromarray(image_3HW.permute(1, 2, 0).cpu().contiguous().numpy())
    file = io.BytesIO()
    if max(picture.size) <= EXACT:
        kind = "png"
        picture.save(file, "PNG", optimize=True)
    else:
        kind = "webp"
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        picture.save(file, "WEBP", quality=QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def duration(seconds: float) -> str:
    """Seconds as "3.2 s", "4 min 05 s" or "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float) -> str:
    """A share in [0, 1] as "12.3 %"."""
    return f"{100 * share:.1f}\u00a0%"


def signed(value: float) -> str:
    """A score with two decimals and a real minus sign."""
    return f"{value:.2f}".replace("-", "−")


def number(value: int) -> str:
    """A count with a thin space at every thousand."""
    return f"{value:,}".replace(",", "\u202f")


def hue(index: int, count: int) -> str:
    """The hue of class `index` of `count`, as degrees; neighbours in the list lie apart on the wheel."""
    return f"{360 * (index * 0.618034 % 1 if count > 12 else index / max(count, 1)):.0f}"
