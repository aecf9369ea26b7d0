"""The schedulers of diffusion models by short names, on a pipeline's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import did_you_mean
from .errors import DecoderError

__all__ = ["SCHEDULERS", "make_scheduler"]

SCHEDULERS = {
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",  # the papers'
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",  # for weights distilled for it
}
FEW = 2


def make_scheduler(name: str, config: Mapping[str, Any], steps: int) -> Any:
    """The scheduler called `name` with the noise schedule of `config` (a pipeline's scheduler's), for so many
    steps.

    With one or two steps they are counted from the noise ("trailing"): as Stable Diffusion spaces them
    otherwise, they would begin in the middle of the schedule or at its end, and treat noise as a picture that
    is nearly clean.

    Raises DecoderError for more steps than the scheduler can take, and for an unknown name with the nearest
    known one.
    """
    import diffusers

    if name not in SCHEDULERS:
        raise DecoderError(
            f"No scheduler is called {name!r}.{did_you_mean(name, SCHEDULERS)} "
            f"There are: {', '.join(SCHEDULERS)}."
        )
    kind = getattr(diffusers, SCHEDULERS[name])
    options = {**config, "clip_sample": False}  # diffusers clips by default, which is meant for pixels
    if name == "pndm":
        options["skip_prk_steps"] = True  # as Stable Diffusion does; diffusers' default is another variant
    if steps <= FEW:
        options["timestep_spacing"] = "trailing"
    scheduler = kind.from_config(options)
    most = scheduler.config.num_train_timesteps
    if name == "lcm":
        most = min(most, scheduler.config.original_inference_steps)
    if not 1 <= steps <= most:
        raise DecoderError(f"The scheduler {name} takes 1 to {most} steps, not {steps}. Change decode.steps.")
    return scheduler
