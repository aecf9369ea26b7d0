"""What can be wrong with a decoder."""

from __future__ import annotations

import torch

__all__ = ["DecoderError", "NotFiniteError"]


class DecoderError(ValueError):
    """A decoder cannot be loaded or used; the message says which part and what to do."""


class NotFiniteError(DecoderError):
    """A part of the decoder (`part`, computing in `dtype`) gave NaN or infinity for the image at `index` of a
    call.
    """

    def __init__(self, index: int, part: str, dtype: torch.dtype, what: str = "Image") -> None:
        self.index, self.part, self.dtype = index, part, dtype
        advice = (
            "Weights that were saved in float16 after an overflow do this: take the decoder's in float32."
            if dtype == torch.float32
            else "Float16 does not hold large numbers: compute in float32, as --device cpu does."
        )
        super().__init__(f"{what} {index}: the {part} of the decoder gave NaN or infinity. {advice}")
