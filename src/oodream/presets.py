"""Named configurations, each beside what it costs and what it attained."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Align, Config, Evaluate, Optimisation, Sample, Train


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A configuration and one line about it."""

    config: Config
    about: str


PRESETS = {
    "demo": Preset(
        about="the embedded sample of Fashion-MNIST (12,000 images, 8 classes), embedded decoder; minutes on 2 cores",
        config=Config(
            align=Align(optimisation=Optimisation(epochs=4)),
            sample=Sample(per_class=150),
            train=Train(optimisation=Optimisation(epochs=8)),
            evaluate=Evaluate(resamples=300),
        ),
    ),
    "fashion": Preset(
        about="all of Fashion-MNIST (48,000 images, 8 classes), embedded decoder; about an hour on 2 cores for 3 seeds",
        config=Config(
            data="fashion-full",
            align=Align(optimisation=Optimisation(epochs=4)),
            sample=Sample(per_class=400),
            train=Train(optimisation=Optimisation(epochs=6)),
        ),
    ),
    "folder": Preset(
        about="your folder of class folders, 32 pixels, embedded decoder",
        config=Config(
            data="", train=Train(optimisation=Optimisation(epochs=12)), align=Align(optimisation=Optimisation(epochs=12))
        ),
    ),
}
