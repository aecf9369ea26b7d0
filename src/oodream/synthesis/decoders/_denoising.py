"""Denoising step by step with a Stable Diffusion's U-Net: its steps, its prompts and its guidance. No
pictures.
"""

from __future__ import annotations

import copy
import math
import threading
from typing import Any

import torch
from torch import Tensor

from ...core.seeding import generator
from ..conditioning import Conditioning
from ..errors import DecoderError
from ._engines import Engine
from ._steps import Watched

__all__ = ["Denoising", "check_guidance"]


class Denoising(Watched):
    """A decoder that denoises latents itself.

    Guidance (classifier-free, Ho and Salimans 2022) acts in an interval of the trajectory, from
    `guided_from` to `guided_until`, where 0 is noise and 1 the image (Kynkäänniemi et al. 2024, arXiv
    2404.07724). Outside of it, and where it is at most 1, the prompt alone is drawn, and the half without
    a prompt is not computed.
    """

    pipeline: Any
    device: torch.device
    steps: int
    guidance: float
    guided_from: float
    guided_until: float
    _engine: Engine
    _uncond: Conditioning
    _schedulers: threading.local

    @property
    def resolution(self) -> int:
        """Width and height of what is drawn, in pixels."""
        raise NotImplementedError

    @property
    def scheduler(self) -> Any:
        """The calling thread's copy of the pipeline's scheduler, which counts its steps."""
        own, scheduler = self._schedulers, self.pipeline.scheduler
        if getattr(own, "copied", None) is not scheduler:
            own.copied, own.copy = scheduler, copy.deepcopy(scheduler)
        return own.copy

    @property
    def evaluations(self) -> int:
        """How often the U-Net evaluates an image that begins at noise: twice in a step that is guided."""
        times = self._timesteps()
        return len(times) + sum(map(self._guides, times))

    def _timesteps(self, steps: int = 0) -> Tensor:
        """The steps' times (T,), from noise to images; the scheduler begins anew."""
        self.scheduler.set_timesteps(steps or self.steps, device=self.device)
        times: Tensor = self.scheduler.timesteps
        return times

    def _step_options(self, seed_B: Tensor, eta: float) -> dict[str, Any]:
        """Keywords for the scheduler's steps: each row's own noise, and DDIM's `eta`, where it is that."""
        generators = [generator(int(s), "steps") for s in seed_B]
        options: dict[str, Any] = self.pipeline.prepare_extra_step_kwargs(generators, eta)
        return options

    def _denoised(self, prompt: Conditioning, noise_BFHW: Tensor, seed_B: Tensor, steps: int = 0) -> Tensor:
        """The latents (B, F, h, w) that noise becomes; from the first step on of the U-Net's type, as those
        of diffusers' pipelines are.
        """
        scheduler, times = self.scheduler, self._timesteps(steps)
        uncond, options = self._uncond.expand(len(noise_BFHW)), self._step_options(seed_B, 0)
        latents = noise_BFHW * scheduler.init_noise_sigma
        with self._engine.running():
            for i, time in enumerate(times):
                prompts = (uncond, prompt) if self._guides(time) else (prompt,)
                predicted = self._combined(self._output(latents, time, *prompts))
                latents = scheduler.step(predicted, time, latents, **options).prev_sample
                self._stepped(i + 1, len(times))
        return latents

    def _guided(
        self, latents_BFHW: Tensor, time: Tensor, uncond: Conditioning, prompt: Conditioning
    ) -> Tensor:
        """What the U-Net predicts for the prompt, guided where guidance acts, in the latents' type."""
        prompts = (uncond, prompt) if self._guides(time) else (prompt,)
        return self._combined(self._predicted(latents_BFHW, time, *prompts))

    def _combined(self, predicted: tuple[Tensor, ...]) -> Tensor:
        """The guided prediction of one without and one with the prompt; a single one is left as it is."""
        *without, prompted = predicted
        return without[0] + self.guidance * (prompted - without[0]) if without else prompted

    def _guides(self, time: Tensor) -> bool:
        """Whether guidance acts at this time; never in a U-Net that is told its guidance (LCM)."""
        if self.guidance <= 1 or self.pipeline.unet.config.time_cond_proj_dim is not None:
            return False
        last = self.pipeline.scheduler.config.num_train_timesteps - 1
        gone = (last - float(time)) / (last + 1)
        return self.guided_from <= gone < self.guided_until

    def _predicted(self, latents_BFHW: Tensor, time: Tensor, *prompts: Conditioning) -> tuple[Tensor, ...]:
        """What the U-Net predicts for the same latents under each of several prompts, (B, F, h, w) each, in
        the latents' type.
        """
        return tuple(x.to(latents_BFHW.dtype) for x in self._output(latents_BFHW, time, *prompts))

    def _output(self, latents_BFHW: Tensor, time: Tensor, *prompts: Conditioning) -> tuple[Tensor, ...]:
        """The same, in the U-Net's type."""
        n, inputs = len(prompts), self.scheduler.scale_model_input(latents_BFHW, time)
        more: dict[str, Any] = {}
        if (added := self._added(prompts, len(inputs))) is not None:
            more["added_cond_kwargs"] = added
        if (width := self.pipeline.unet.config.time_cond_proj_dim) is not None:
            scale = torch.tensor(self.guidance - 1).repeat(len(inputs))
            more["timestep_cond"] = self.pipeline.get_guidance_scale_embedding(scale, width).to(inputs)
        states = torch.cat([prompt.states_BLD for prompt in prompts])
        return self._engine.predict(torch.cat([inputs] * n), time, states, **more).chunk(n)

    def _added(self, prompts: tuple[Conditioning, ...], n: int) -> dict[str, Tensor] | None:
        """What SDXL's U-Net sees besides: pooled vectors, and the size of an image that is not cut."""
        pooled = [prompt.pooled_BP for prompt in prompts if prompt.pooled_BP is not None]
        if not pooled:
            return None
        size = torch.tensor([self.resolution] * 2 + [0, 0] + [self.resolution] * 2, device=self.device)
        return {
            "text_embeds": torch.cat(pooled),
            "time_ids": size.expand(n * len(prompts), -1).to(pooled[0].dtype),
        }


def check_guidance(guidance: float, guided_from: float, guided_until: float) -> None:
    """Raises DecoderError for guidance below 0, and for an interval that is none."""
    if not 0 <= guidance < math.inf:
        raise DecoderError(f"guidance is at least 0, not {guidance}.")
    if not 0 <= guided_from <= guided_until <= 1:
        raise DecoderError(
            f"Guidance acts from a share of the trajectory to a later one, both between 0 and 1, not from "
            f"{guided_from} (guided_from) to {guided_until} (guided_until)."
        )
