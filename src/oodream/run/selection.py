"""Which of a run's imagined rows stay, and why others do not: filters drop some, and people decide."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import StoreError, shown
from .curation import REJECTED, Curation, Decision, read_decisions
from .folder import inputs_hash
from .lacking import check_imagines
from .layout import imagined_stage
from .reading import again, read_tensors

if TYPE_CHECKING:
    from .artifacts import Run

__all__ = ["Selection"]


class Selection:
    """The rows of a run by what filters and people say of them. The files are read once.

    A person's decision stands above the filters'. Latents pass all filters, for these look at images.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    @cached_property
    def decisions(self) -> list[Decision]:
        """All that people have decided about imagined rows, whichever images these then were."""
        return read_decisions(self._run.layout.curation) if self._run.imagines else []

    @cached_property
    def curation(self) -> Curation:
        """What people have decided about the imagined rows that there are.

        Raises StoreError where the file is damaged, or is about a row that there is not.
        """
        stamp = self._run.stamp(imagined_stage(self._run.config.decode.output))
        curation = Curation(self.decisions, inputs_hash(stamp["inputs"]) if stamp else "")
        curation.check(len(self._run.vectors) if stamp else 0, self._run.layout.curation)
        return curation

    @cached_property
    def filter_mask(self) -> Tensor:
        """True (M,) for rows that all filters keep."""
        if self._run.has_latents:
            return torch.ones(len(self._run.vectors), dtype=torch.bool)
        return self._filtered("keep").bool()

    @cached_property
    def filter_reasons(self) -> list[str]:
        """Why a filter dropped each row; empty for those that all keep."""
        if self._run.has_latents:
            return [""] * len(self._run.vectors)
        reasons = (self._run.stamp("filter") or {"summary": {}})["summary"].get("reasons", [])
        dropped_by_M = self._filtered("dropped_by")
        if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
            raise StoreError(
                f"{shown(self._run.layout.keep_mask)} has no reasons beside it. {again('filter')}"
            )
        if len(dropped_by_M) and int(dropped_by_M.max()) >= len(reasons):
            raise StoreError(f"{shown(self._run.layout.keep_mask)} is damaged. {again('filter')}")
        return [reasons[i] if i >= 0 else "" for i in dropped_by_M.tolist()]

    def _filtered(self, name: str) -> Tensor:
        """What the filters say of each row (M,)."""
        file = self._run.layout.keep_mask
        check_imagines(self._run, file)
        values_M = read_tensors(file, "filter", name)[name]
        if values_M.shape != (len(self._run.vectors),) or values_M.is_floating_point():
            raise StoreError(f"{shown(file)} is of other rows. {again('filter')}")
        return values_M

    @cached_property
    def keep_mask(self) -> Tensor:
        """True (M,) for rows that stay."""
        keep_M = self.filter_mask.clone()
        keep_M[self.curation.rejected] = False
        keep_M[self.curation.kept] = True
        return keep_M

    @cached_property
    def drop_reasons(self) -> list[str]:
        """Why each row was dropped, by a filter or by a person; empty for those that stay."""
        states = self.curation.states
        return [
            ("" if states[m] else REJECTED) if m in states else reason
            for m, reason in enumerate(self.filter_reasons)
        ]
