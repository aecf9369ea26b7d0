"""Stable Diffusion step by step, for decoders that look at known images or their classifier on the way."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from torch import Tensor

from ...core.seeding import generator
from ...core.types import Generated
from ..errors import DecoderError
from ..known import Known
from .stable import StableDecoder

__all__ = ["FromKnown", "Stepwise"]


class Stepwise(StableDecoder):
    """A Stable Diffusion pipeline whose steps a method takes itself: `_imagine` is its algorithm.

    What it may look at is `known`, from `with_known`. Noise, networks, schedulers and tiles are those of
    `StableDecoder`, and `plainly` draws as that does.
    """

    guided: ClassVar[bool] = False
    _known: Known | None = None

    def with_known(self, known: Known) -> Stepwise:
        """The decoder with what it looks at."""
        decoder = copy.copy(self)
        decoder._known = known
        return decoder

    @property
    def known(self) -> Known:
        """What it looks at; ValueError where it has not been given anything."""
        if self._known is None:
            raise ValueError("The decoder has no known images yet: give it some by with_known(Known(…)).")
        return self._known

    def begins_at(self, y_B: Tensor, seed_B: Tensor) -> Tensor | None:
        """None: it begins at noise, unless a subclass says otherwise."""
        return None

    def plainly(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Images of vectors, as `StableDecoder` draws them."""
        return self._images(super()._imagine, z_BD, y_B, seed_B)

    def _levels(self, time: Tensor) -> tuple[float, float]:
        """By how much latents of this time hold the clean ones and noise: sqrt(a) and sqrt(1 - a), or, where
        a scheduler's latents have another scale, 1 and sigma.
        """
        one, add = torch.ones(1, 1, 1, 1, device=self.device), self.scheduler.add_noise
        return add(one, 0 * one, time[None]).item(), add(0 * one, one, time[None]).item()

    def _clean(self, latents_BFHW: Tensor, time: Tensor, predicted_BFHW: Tensor) -> Tensor:
        """The clean latents that a prediction, of noise or of velocity, means.

        With x the latents at unit variance, sqrt(a) x0 + sqrt(1 - a) eps, they are
        (x - sqrt(1 - a) eps) / sqrt(a), and sqrt(a) x - sqrt(1 - a) v. Raises DecoderError for a U-Net that
        predicts something else.
        """
        signal, noise = self._levels(time)
        scale = math.hypot(signal, noise)
        x, signal, noise = latents_BFHW / scale, signal / scale, noise / scale
        match self.pipeline.scheduler.config.prediction_type:
            case "epsilon":
                return (x - noise * predicted_BFHW) / signal
            case "v_prediction":
                return signal * x - noise * predicted_BFHW
            case other:
                raise DecoderError(f"Decoders that are guided need a U-Net that predicts noise, not {other}.")


class FromKnown(Stepwise):
    """One whose images begin at known images of their class: a row's class and seed say at which."""

    def begins_at(self, y_B: Tensor, seed_B: Tensor) -> Tensor:
        """The rows (B,) of the known images that images of these classes and seeds begin at."""
        labels_N = self.known.images().labels
        rows = {y: (labels_N == y).nonzero()[:, 0] for y in y_B.unique().tolist()}
        return torch.tensor(
            [
                rows[y][torch.randint(len(rows[y]), (1,), generator=generator(s, "begins at"))]
                for y, s in zip(y_B.tolist(), seed_B.tolist(), strict=True)
            ],
            dtype=torch.long,
        )

    def _begun(self, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        """The latents (B, F, h, w) of these known images, at the U-Net's scale."""
        pixels = self.known.images().batch(self.begins_at(y_B, seed_B))
        return self._encoded(pixels, rows) * self.pipeline.vae.config.scaling_factor
