"""Known images, edited in Stable Diffusion until they show another thing: SONA."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.seeding import generator
from ..errors import DecoderError
from ._autoencoding import finite
from ._stepwise import FromKnown
from .stable import noise

__all__ = ["EditedDecoder", "edits"]

# Constants of suheey/SONA at 93126b1, generator/generate_sona.py.
EDITED_FROM, KEPT_FROM = 10 / 50, 20 / 50  # shares of the steps that go by first
MOMENTUM, DECAY = 0.3, 0.6


@register("decoders", "edited")
class EditedDecoder(FromKnown):
    """Begins at a known image of the class, takes away what makes it one and puts the vector's thing there;
    the rest stays (after SONA, Yoon et al. 2025, arXiv 2408.14841).

    The image's latents are noised up to a random step and denoised from there, without a prompt but with
    `edits`, `guidance` strong (there 10): towards the class where the class's prompt changes least, the share
    `nuisance` of the latents; away from it where it changes most, and towards the vector's prompt where that
    does, the share `semantic`. From `low` to `high` of all steps are taken, each number as often, but so many
    at least that an image is edited; there some that are not edited are outliers, too. Vectors come from the
    sampler; there they are words that name no class (`words`).

    An image's class and seed say which known image it begins at, and at which step.
    """

    kind: ClassVar[str] = "outlier"

    def __init__(
        self,
        source: str = "embedded",
        *,
        low: Annotated[float, Range(0, 1)] = 0.0,
        high: Annotated[float, Range(0, 1, "low")] = 1.0,
        nuisance: Annotated[float, Range(0, 1)] = 0.1,
        semantic: Annotated[float, Range(0, 1)] = 0.1,
        **drawing: Any,
    ) -> None:
        if low > high:
            raise DecoderError(f"low must be at most high ({high:g}), not {low!r}.")
        super().__init__(source, **drawing)
        if (self.guided_from, self.guided_until) != (0, 1):
            raise DecoderError(
                "The decoder 'edited' says itself when it edits: leave guided_from and guided_until."
            )
        self.low, self.high, self.nuisance, self.semantic = low, high, nuisance, semantic
        self._own_options = ("edited", self.low, self.high, self.nuisance, self.semantic)

    def taken(self, seed_B: Tensor) -> Tensor:
        """How many of the steps are taken (B,)."""
        share_B = torch.stack([torch.rand((), generator=generator(int(s), "begins")) for s in seed_B])
        fewest = min(math.ceil(EDITED_FROM * self.steps) + 1, self.steps)
        least, most = (max(fewest, share * self.steps) for share in (self.low, self.high))
        return (least + (most - least) * share_B).floor().long()

    @torch.no_grad()
    def _imagine(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        scheduler, times, options = self.scheduler, self._timesteps(), self._step_options(seed_B, 0)
        prompts = (
            self._uncond.expand(len(y_B)),
            self.text.prompt([self.book.prompts[y] for y in y_B.tolist()]),
            self.text.splice(z_BD, y_B),
        )
        known = self._begun(y_B, seed_B, rows)
        gaussian = noise(seed_B, known).to(known)
        first_B = len(times) - self.taken(seed_B).to(self.device)
        latents, momentum = gaussian, torch.zeros_like(gaussian)
        with self._engine.running():
            for i, time in enumerate(times):
                # Until a row's first step its latents are the known image's, as noisy as the step has them.
                begun = scheduler.add_noise(known, gaussian, time.expand(len(known)))
                latents = torch.where(_per_row(i <= first_B), begun, latents)
                plain, own, other = self._predicted(latents, time, *prompts)
                age_B = (i - first_B) / self.steps
                edit, momentum = self._edited(own - plain, other - plain, momentum, age_B)
                latents = scheduler.step(plain + edit, time, latents, **options).prev_sample
                self._stepped(i + 1, len(times))
        return finite(latents, "U-Net", rows)

    def _edited(self, own: Tensor, other: Tensor, momentum: Tensor, age_B: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to a prediction, and the momentum after it, where the share `age_B` of the steps has
        gone by since a row's first.

        The momentum is gathered from the first step on, and used once all three edits are.
        """
        kept, removed, put = (self.guidance * x for x in edits(own, other, self.nuisance, self.semantic))
        whole = kept + removed + put + MOMENTUM * momentum
        edit = torch.where(_per_row(age_B >= EDITED_FROM), (removed + put) / 2, 0)
        edit = torch.where(_per_row(age_B >= KEPT_FROM), whole, edit)
        gathered = DECAY * momentum + (1 - DECAY) * whole
        return edit, torch.where(_per_row(age_B >= 0), gathered, 0)


def edits(own: Tensor, other: Tensor, nuisance: float, semantic: float) -> tuple[Tensor, Tensor, Tensor]:
    """SONA's three guidances (B, F, h, w) of what the class's prompt (`own`) and another one change in a
    prediction: kept nuisance, removed meaning, and the meaning that is put in its place.

    Nuisance is where `own` is smallest, the share `nuisance` of every channel, and meaning where a change is
    largest, the share `semantic`; no other meaning is put where there is nuisance.
    """
    own_is_small = own.abs() <= _quantile(own, nuisance)
    own_is_large, other_is_large = (x.abs() >= _quantile(x, 1 - semantic) for x in (own, other))
    return own * own_is_small, -own * own_is_large, other * (other_is_large & ~own_is_small)


def _quantile(x: Tensor, share: float) -> Tensor:
    """Of the magnitudes in every channel of every row, (B, F, 1, 1)."""
    return x.abs().float().flatten(2).quantile(share, dim=2)[:, :, None, None]


def _per_row(x_B: Tensor) -> Tensor:
    return x_B[:, None, None, None]
