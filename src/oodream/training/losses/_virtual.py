"""What losses on virtual outliers share: a queue of recent features of every class.

A virtual outlier is a point of the feature space. No image belongs to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...core.types import Step

__all__ = ["FeatureQueue"]


class FeatureQueue(nn.Module):
    """The last `length` features of every class, without gradients; a part of the state of a training.

    `z_CQF` are the features, in no order, and `count_C` says how many of each class have ever come. Both are
    None before `build`, and after `clear`.
    """

    z_CQF: Tensor | None
    count_C: Tensor | None

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.clear()

    def build(self, classes: int, features: int) -> None:
        """Makes room, for nothing yet."""
        self.register_buffer("z_CQF", torch.zeros(classes, self.length, features))
        self.register_buffer("count_C", torch.zeros(classes, dtype=torch.int64))

    def clear(self) -> None:
        """Lets go of all features and of their room."""
        self.register_buffer("z_CQF", None)
        self.register_buffer("count_C", None)

    @torch.no_grad()
    def push(self, step: Step) -> None:
        """Takes the features of the step's known images in; the oldest of a full class leave."""
        assert self.z_CQF is not None, "build comes first"
        assert self.count_C is not None
        y_B, z_BF = step.y_B, step.id.z_BF
        arrived_C = torch.bincount(y_B, minlength=len(self.count_C))
        turn_B = (y_B[:, None] == y_B).tril(-1).sum(1)  # how many images of its class stand before
        fits_B = turn_B >= arrived_C[y_B] - self.length
        place_B = (self.count_C[y_B] + turn_B) % self.length
        self.z_CQF[y_B[fits_B], place_B[fits_B]] = z_BF[fits_B].to(self.z_CQF.dtype)
        self.count_C += arrived_C

    def by_class(self) -> list[Tensor]:
        """The features (n, F) of every class that has two or more."""
        assert self.z_CQF is not None, "build comes first"
        assert self.count_C is not None
        sizes = self.count_C.clamp(max=self.length).tolist()
        return [z_QF[:n] for z_QF, n in zip(self.z_CQF, sizes, strict=True) if n >= 2]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Makes the room that a state has, so that a queue need not be built to be read."""
        for name in ("z_CQF", "count_C"):
            saved = state_dict.get(prefix + name)
            self.register_buffer(name, None if saved is None else torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)
