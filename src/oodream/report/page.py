"""The verb `report`: one self-contained HTML page from what a run made and measured.

The page loads nothing, runs no script and opens from a file. Its figures are SVG that the template draws from path strings made
here, so they follow the page's type and its light or dark colours. Nothing here measures: metrics arrive as rows, pictures as
tensors. Names, prompts and file names come from users, so the template escapes everything.
"""

from __future__ import annotations

import base64
import io
import json

import jinja2
import torch
from PIL import Image

from ..core.files import ASSETS
from .content import Report
from .figures import drawn_map, score_figures
from .tables import COLUMNS, headline, key_figures, measured_lines, shift_tables, shifted

TEMPLATES = ASSETS / "report"
THUMBNAIL = 128
WARN_RECONSTRUCTED = 0.6


def report(content: Report) -> str:
    """One HTML page as text; equal content gives equal text.

    Raises ValueError when no classifier is named, an image is not uint8 (3, H, W) or a score is not finite.
    """
    if not content.classifiers:
        raise ValueError("A report needs at least one classifier.")
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {f.__name__: f for f in (png, duration, percent, signed, number, hue)}
    lines, shifts = measured_lines(content), shift_tables(content)
    refused = {name: shifted(content.shifts, name, "refused") for name in content.classifiers if shifts}
    return environment.get_template("index.html.j2").render(
        r=content, lines=lines, shifts=shifts, refused=refused, headline=headline(content, lines, shifts),
        key_figures=key_figures(content, lines),
        metrics=COLUMNS, detector=content.detector, base=next(iter(content.classifiers)), final=list(content.classifiers)[-1],
        figures=score_figures(content), map=drawn_map(content), config=json.dumps(content.config, indent=2, ensure_ascii=False,
        default=str), seeds=len({row.seed for row in content.rows}), warn_reconstructed=WARN_RECONSTRUCTED,
    )  # fmt: skip


# Filters of the template


def png(image_3HW: torch.Tensor) -> str:
    """A data URI of the image, shrunk to at most 128 pixels a side."""
    if image_3HW.dtype != torch.uint8 or image_3HW.ndim != 3 or image_3HW.shape[0] != 3:
        raise ValueError(f"An image must be uint8 (3, H, W), not {image_3HW.dtype} {tuple(image_3HW.shape)}.")
    picture = Image.fromarray(image_3HW.permute(1, 2, 0).cpu().contiguous().numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def duration(seconds: float) -> str:
    """Seconds as "3.2 s", "4 min 05 s" or "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return (
        f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
        if seconds < 3600
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


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
