"""A guard of clothes, exported once for all tests that run its graphs."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from oodream.data.builtin import digits
from oodream.data.images import ImageSet
from oodream.deploy.export import Exported, export
from oodream.deploy.quantize import Int8Images
from tests.helpers.guarded import SIZE, clothes, guard


@functools.cache
def _room() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@functools.cache
def exported() -> tuple[Path, Exported]:
    """The folder, with graphs in floating point and in integers, and what is said of them."""
    train, test = clothes()
    ood = [ImageSet(name="digits", group="far", images=digits(SIZE, 200))]
    folder = Path(_room().name) / "clothes"
    return folder, export(guard(), folder, int8=Int8Images(train=train, held_out=test, ood=ood))
