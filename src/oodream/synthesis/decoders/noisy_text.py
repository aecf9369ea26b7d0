"""Vectors' prompts with noise on what the text encoder makes of them: a baseline of DREAM-OOD's."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ..errors import DecoderError
from .stable import StableDecoder, noise

__all__ = ["NoisyTextDecoder"]


@register("decoders", "noisy_text")
class NoisyTextDecoder(StableDecoder):
    """Draws with Gaussian noise on the text encoder's states, of the standard deviation `scale`, where
    DREAM-OOD moves the class's vector before the encoder (the baseline `gaussian_scale` of its code).

    The vectors come from the sampler; with those of a class's own name (`gaussian` with a small `spread`) it
    is the noise alone that makes other things of them. Every image has noise of its own.

    Raises DecoderError for a negative `scale`, and where `stable` does.
    """

    kind: ClassVar[str] = "outlier"

    def __init__(
        self, source: str = "embedded", *, scale: Annotated[float, Range(0)] = 2.0, **drawing: Any
    ) -> None:
        if not scale >= 0:
            raise DecoderError(f"scale is at least 0, not {scale!r}.")
        super().__init__(source, **drawing)
        self.scale = scale
        self._own_options = ("noisy text", scale)

    def _imagine(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        prompt = self.text.splice(z_BD, y_B)
        states_BLD = prompt.states_BLD
        states_BLD = states_BLD + self.scale * noise(seed_B, states_BLD, "text").to(states_BLD)
        return self._denoise(replace(prompt, states_BLD=states_BLD), seed_B, rows)
