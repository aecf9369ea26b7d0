"""Real images of other things, which may stand in for imagined outliers: where they lie, and where they must
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config import RegularizeConfig
from ..core.errors import DataError, shown
from ..core.folders import is_within
from .folders import list_ood
from .listing import Listing

__all__ = ["WORLD", "check_real", "list_real"]

WORLD = "world"
"""What stands for a data set's own real other things where a folder of them may be named."""


def list_real(folder: Path) -> Listing:
    """The pictures of real outliers below a folder, labelled by the folders that they lie in; DataError where
    there are none.
    """
    listing = list_ood(folder, "real outliers")
    names = [path.parent.relative_to(folder).as_posix() for path in listing.paths]
    number = {name: i for i, name in enumerate(sorted({*names}))}
    return replace(listing, labels=tuple(number[name] for name in names), classes=tuple(number))


def check_real(config: RegularizeConfig, known: Path | None, test: Sequence[Path]) -> None:
    """Raises DataError unless a place of real outliers is named where they are asked for, and there alone.

    A folder of them lies apart from that of the `known` images, if these lie in one, and from the folders of
    `test` images, and holds pictures.
    """
    if config.outliers == "real" and not config.real:
        raise DataError(
            "Which real outliers? Name a folder of pictures of other things: --regularize.real FOLDER."
        )
    if config.outliers != "real" and config.real:
        where = shown(config.real)
        raise DataError(
            f"--regularize.real {where} takes --regularize.outliers real; it is {config.outliers}."
        )
    if config.real in ("", WORLD):
        return
    list_real(folder := Path(config.real))
    others = [*([(known, "known images")] if known else []), *((path, "test images") for path in test)]
    for other, what in others:
        if is_within(folder, other) or is_within(other, folder):
            raise DataError(
                f"The real outliers in {shown(folder)} and the {what} in {shown(other)} lie in one folder. "
                "Put the real outliers into a folder of their own."
            )
