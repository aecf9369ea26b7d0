"""Filters: which imagined images stay. One method, one file; `make_filters` reads a configuration, and
`passing` asks one and checks its answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...config import FilterConfig
from ...core.faults import blamed, require
from ...core.registry import make_all
from ...core.types import Filter

__all__ = ["AUTO", "check_mask", "check_reason", "make_filters", "passing"]

AUTO = {"outlier": "id_leak", "inlier": "class_drift"}
"""the filter that "auto" stands for, by the kind of the vectors"""


def make_filters(config: FilterConfig, kind: str) -> dict[str, Filter]:
    """The filters of `config` by name, in their order, for imagined images of a kind ("outlier" or
    "inlier"); "auto" is resolved.

    An image stays that all of them keep; without filters all images do. Raises ValueError for an unknown
    filter, an option that it does not have or of a filter that is not used, a value out of the option's
    range, a filter without a reason, and one for images of the other kind (see `core.types.Filter`).
    """
    names = [AUTO[kind] if name == "auto" else name for name in config.filters]
    if not names:
        if config.options:
            raise ValueError(f"There is no filter to take the options {', '.join(config.options)}.")
        return {}
    filters: dict[str, Filter] = make_all("filters", names, config.options)
    for name, keeps in filters.items():
        with blamed(f"The filter {name!r}", keeps):
            check_reason(keeps)
        if (wanted := getattr(keeps, "kind", kind)) != kind:
            raise ValueError(
                f"The filter {name!r} is for {wanted}s, and drops what {kind}s should show. Leave "
                f"--filter.filters, which is then {AUTO[kind]!r}, or name others."
            )
    return filters


def passing(name: str, keeps: Filter, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor:
    """Which images stay, boolean (B,), by the filter called `name`.

    Raises ValueError with its name for whatever it raises, and for another answer.
    """
    with blamed(f"The filter {name!r}", keeps):
        keep_B = keeps(images_B3HW, y_B, baseline)
        check_mask(keep_B, len(y_B))
    return keep_B


def check_reason(keeps: Filter) -> None:
    """Raises BrokenRule unless a filter's `reason` is a sentence, of three words or more."""
    reason = getattr(keeps, "reason", None)
    sentence = isinstance(reason, str) and len(reason.split()) >= 3
    require(sentence, "reason says in a sentence why an image goes; it is", reason)


def check_mask(keep_B: Tensor, count: int) -> None:
    """Raises BrokenRule unless a filter's answer for so many images is boolean (count,), on the CPU."""
    wanted = f"It returns a boolean tensor of shape ({count},) on the CPU for {count} images, not"
    require(isinstance(keep_B, Tensor), wanted, keep_B)
    right = keep_B.dtype == torch.bool and tuple(keep_B.shape) == (count,) and keep_B.device.type == "cpu"
    require(right, f"{wanted} {keep_B.dtype} of shape {tuple(keep_B.shape)} on {keep_B.device}.")
