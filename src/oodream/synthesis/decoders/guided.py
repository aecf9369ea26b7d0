"""Stable Diffusion, guided away from what the baseline classifier knows: GOOD."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...core.options import Range
from ...core.registry import register
from ...models.inference import Extractor
from ..errors import DecoderError
from ..known import Known
from ._autoencoding import finite, resized
from ._stepwise import Stepwise
from .stable import noise

__all__ = ["GuidedDecoder", "distance"]

ETA = 1.0  # of DDIM's steps, as in gaoxin492/GOOD at f93295e, configs/


@register("decoders", "guided")
class GuidedDecoder(Stepwise):
    """Draws vectors, and moves the latents after every step to where the image that they lead to is less
    known to the baseline classifier (after GOOD, Gao et al. 2025, arXiv 2510.17131).

    Of the clean latents x0 that a step predicts, noised by `smooth` sqrt(1 - a), the VAE draws an image. By
    `energy` the image is as unknown as minus the logsumexp of its logits, by `feature` as far as its features
    are from the `k`-th nearest ones of known images, all at unit norm. This rises along its gradients, g in
    x0 and h in the latents themselves, and the latents after the step become, with w the ratio of a here and
    there, divided by its mean over the steps,

        latents  +  strength w ( sqrt(a there) g  +  h / sqrt(a here / a there) ).

    The published settings are `strength` 0.5 and `smooth` 0.1 for `energy`, and 1, 0.001 and `k` 100 for
    `feature`, in 100 steps of `ddim` with eta 1, from the class's own prompt: its features' mean is the
    sampler `gaussian` with hardly any `spread`. Guidance takes memory and time for the way back through all
    networks. How the published code measures the distance of features is not in it.
    """

    guided: ClassVar[bool] = True
    kind: ClassVar[str] = "outlier"

    def __init__(
        self,
        source: str = "embedded",
        *,
        by: Literal["energy", "feature"] = "energy",
        strength: Annotated[float, Range(0)] = 0.5,
        smooth: Annotated[float, Range(0)] = 0.1,
        k: Annotated[int, Range(1)] = 100,
        **drawing: Any,
    ) -> None:
        if by not in ("energy", "feature"):
            raise DecoderError(f"by is energy or feature, not {by!r}.")
        super().__init__(source, **drawing)
        if not self._engine.differentiable:
            raise DecoderError("The decoder 'guided' needs gradients, which the engine 'openvino' has not.")
        self.by, self.strength, self.smooth, self.k = by, strength, smooth, k
        self._own_options = ("guided", self.by, self.strength, self.smooth, self.k)

    def with_known(self, known: Known) -> Stepwise:
        """The decoder with what it looks at; DecoderError for fewer known images than `k` neighbours."""
        if self.by == "feature" and len(known.images()) < self.k:
            raise DecoderError(
                f"k is {self.k}, and there are {len(known.images())} known images. Lower it: "
                f"--decode.options k={max(1, len(known.images()) // 10)}"
            )
        return super().with_known(known)

    @cached_property
    def _network(self) -> nn.Module:
        """The baseline classifier, as it is."""
        return self.known.baseline().to(self.device).eval().requires_grad_(False)

    @cached_property
    def _features(self) -> Tensor:
        """The known images' features (N, F), of unit norm."""
        z_NF = Extractor(self._network, device=self.device)(self.known.images()).z_BF
        return normalize(z_NF, dim=1).to(self.device)

    def _imagine(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        scheduler, times, options = self.scheduler, self._timesteps(), self._step_options(seed_B, ETA)
        prompts = self._uncond.expand(len(y_B)), self.text.splice(z_BD, y_B)
        latents = noise(seed_B, self._no_latents).to(prompts[1].states_BLD) * scheduler.init_noise_sigma
        levels = [*map(self._levels, times), (1.0, 0.0)]
        a, scale = zip(*((s**2 / (s**2 + n**2), math.hypot(s, n)) for s, n in levels), strict=True)
        ratio = [here / there for here, there in pairwise(a)]
        for i, time in enumerate(times):
            smoothing = self.smooth * math.sqrt(1 - a[i]) * noise(seed_B, latents, f"smooth {i}").to(latents)
            predicted, in_latents, in_clean = self._gradients(latents, time, prompts, smoothing, rows)
            weight = self.strength * ratio[i] * len(ratio) / sum(ratio)
            with torch.no_grad():
                stepped = scheduler.step(predicted, time, latents, **options).prev_sample
            moved = math.sqrt(a[i + 1]) * in_clean + scale[i] * in_latents / math.sqrt(ratio[i])
            latents = (stepped + weight * scale[i + 1] * moved).to(latents.dtype)
            self._stepped(i + 1, len(times))
        return finite(latents, "U-Net", rows)

    def _gradients(
        self, latents: Tensor, time: Tensor, prompts: tuple[Any, Any], smoothing: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The prediction, and the gradients in the latents and in the clean ones of how unknown the image
        is.
        """
        with torch.enable_grad():
            latents = latents.detach().requires_grad_()
            predicted = self._guided(latents, time, *prompts)
            clean = self._clean(latents, time, predicted)
            unknown_B = self._unknown(clean + smoothing)
            in_latents, in_clean = torch.autograd.grad(unknown_B.sum(), (latents, clean))
        return predicted.detach(), finite(in_latents, "U-Net", rows), in_clean

    def _unknown(self, clean_BFHW: Tensor) -> Tensor:
        """How unknown the images of clean latents are to the baseline classifier (B,)."""
        vae = self.pipeline.vae
        sample = self._engine.decode(clean_BFHW.to(vae.dtype) / vae.config.scaling_factor)
        output = self._network((resized(sample.float(), self.size) + 1) * 127.5)
        if self.by == "energy":
            return -output.logits_BC.float().logsumexp(1)
        return distance(output.z_BF.float(), self._features, self.k)


def distance(z_BF: Tensor, known_NF: Tensor, k: int) -> Tensor:
    """The distance (B,) of features, brought to unit norm, to the k-th nearest known ones."""
    return torch.cdist(normalize(z_BF, dim=1), known_NF).kthvalue(k, dim=1).values
