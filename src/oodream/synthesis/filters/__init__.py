"""Filters: which imagined images stay. One method, one file; `make_filters` reads a configuration."""

from __future__ import annotations

from ...config import FilterConfig
from ...core.registry import make_all
from ...core.types import Filter

__all__ = ["AUTO", "make_filters"]

AUTO = {"outlier": "id_leak", "inlier": "class_drift"}
"""the filter that "auto" stands for, by the kind of the vectors"""


def make_filters(config: FilterConfig, kind: str) -> list[Filter]:
    """The filters of `config`, in their order, for imagined images of a kind ("outlier" or "inlier"); "auto"
    is resolved.

    An image stays that all of them keep; without filters all images do. Raises ValueError for an unknown
    filter, an option that it does not have or of a filter that is not used, and a value out of the option's
    range.
    """
    names = [AUTO[kind] if name == "auto" else name for name in config.filters]
    if not names:
        if config.options:
            raise ValueError(f"There is no filter to take the options {', '.join(config.options)}.")
        return []
    return list(make_all("filters", names, config.options).values())
