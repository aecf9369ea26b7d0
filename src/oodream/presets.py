"""Named configurations, each beside what it costs and what it attained."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Align, Config, Evaluate, Optimisation, Sample, Train


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A configuration and one line about it."""

    config: Config
    about: str


# Cross-entropy stops pulling an embedding towards T(y) once cos / temperature exceeds the other classes' by a few units: with 100
# classes and 0.1 that is near cos = 1, with 8 classes far from it (measured: 0.53, against 0.63 at 0.25), and vectors sampled
# around such features decode into things that have nothing to do with the class.
FEW_CLASSES = 0.25

PRESETS = {
    "demo": Preset(
        about="the embedded sample of Fashion-MNIST (12,000 images, 8 classes), embedded decoder; minutes on 2 cores",
        config=Config(
            align=Align(temperature=FEW_CLASSES, optimisation=Optimisation(epochs=4)),
            sample=Sample(per_class=150),
            train=Train(optimisation=Optimisation(epochs=8)),
            evaluate=Evaluate(resamples=300),
        ),
    ),
    "fashion": Preset(
        about="all of Fashion-MNIST (48,000 images, 8 classes), embedded decoder; about an hour on 2 cores for 3 seeds",
        config=Config(
            data="fashion-full",
            align=Align(temperature=FEW_CLASSES, optimisation=Optimisation(epochs=4)),
            sample=Sample(per_class=400),
            train=Train(optimisation=Optimisation(epochs=6)),
        ),
    ),
    "folder": Preset(
        about="your folder of class folders, 32 pixels, embedded decoder",
        config=Config(
            data="",
            align=Align(optimisation=Optimisation(epochs=12, least_steps=600)),
            train=Train(optimisation=Optimisation(epochs=12, least_steps=600)),
        ),
    ),
}
