"""The templates of the pages, with their filters: pictures as data, durations, percentages, signs.

Names, prompts and file names come from users, so the templates escape everything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image

from ..core.files import ASSETS
from ..runtime.answers import compared

__all__ = ["duration", "hue", "number", "percent", "render", "thumbnail", "verdict"]

TEMPLATES = ASSETS / "report"
THUMBNAIL = 128
EXACT = 64  # pixels a side up to which a picture is kept to the bit
QUALITY = 85  # of WebP, for larger ones


def render(template: str, /, *folders: Path, **values: Any) -> str:
    """A template's page as text that UTF-8 can hold; equal values give equal text. Templates are looked for
    in the `folders` first, and then among those of the report.
    """
    page = _environment(*folders, TEMPLATES).get_template(template).render(values)
    # File names that are not UTF-8 reach Python as lone surrogates, which no file could hold.
    return page.encode("utf-8", "backslashreplace").decode()


@cache
def _environment(*folders: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: tuple[Callable[..., str], ...] = (thumbnail, duration, percent, verdict, number, hue)
    environment.filters |= {f.__name__: f for f in filters}
    return environment


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


def verdict(score: float, threshold: float) -> str:
    """A score beside its threshold, as "−1.25 ≤ 0.50", with real minus signs."""
    return f" {'>' if score > threshold else '≤'} ".join(compared(score, threshold)).replace("-", "−")


def number(value: int) -> str:
    """A count with a thin space at every thousand."""
    return f"{value:,}".replace(",", "\u202f")


def hue(index: int, count: int) -> str:
    """The hue of class `index` of `count`, as degrees; neighbours in the list lie apart on the wheel."""
    return f"{360 * (index * 0.618034 % 1 if count > 12 else index / max(count, 1)):.0f}"
