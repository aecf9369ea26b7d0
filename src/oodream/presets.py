"""Named configurations, each beside what it costs and what it attained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .config import Align, Config, Decode, Evaluate, Optimisation, Option, Sample, Train


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A configuration and one line about it."""

    config: Config
    about: str


# What follows are the constants of DREAM-OOD's published code (deeplearning-wisc/dream-ood at fcb89c6); docs/faithfulness.md says
# where each stands there and what differs all the same.
def dream_options(sigma: float, boundary: float) -> dict[str, Option]:
    """The sampler's options for the published noise `sigma` (a standard deviation, at width 768)."""
    cosine = round(1 / math.sqrt(1 + 768 * sigma**2), 5)
    return {
        "k": 300, "boundary": boundary, "cosine": cosine, "candidates": 1500, "anchors": 50, "kept": 2, "select": "distance",
    }  # fmt: skip


DREAM_DECODE = Decode(source="CompVis/stable-diffusion-v1-4", scheduler="pndm", steps=50, guidance=7.5, tile=0)
INLIERS: dict[str, Option] = dream_options(sigma=0.01, boundary=1.0) | {"kind": "inlier", "anchors": 100, "kept": 1}
CIFAR = Optimisation(epochs=200, batch=256, lr=0.1, crop_padding=4)
IMAGENET = Optimisation(epochs=100, batch=160, lr=0.1, least_area=0.08)


def dream_train(optimisation: Optimisation, beta: float) -> Train:
    """As many outliers as ID images in a batch, and nothing that the published code does not have."""
    return Train(
        backbone="resnet34", loss_options={"beta": beta}, optimisation=optimisation, ratio=1.0,
        reconstructed_share=0.0, grey=0.0, leak_threshold=1.0,
    )  # fmt: skip


def cifar(name: str, about: str) -> Preset:
    """A CIFAR data set of the hub with the constants for CIFAR-100."""
    return Preset(
        about=f"{about}; needs a GPU, Stable Diffusion 1.4, oodream[hub]",
        config=Config(
            data=f"hub:uoft-cs/{name}",
            classes=name,
            align=Align(backbone="resnet34", optimisation=CIFAR),
            sample=Sample(options=dream_options(sigma=0.07, boundary=50 / 500), per_class=1000),
            decode=DREAM_DECODE,
            train=dream_train(CIFAR, beta=2.5),
        ),
    )


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
        about="all of Fashion-MNIST (48,000 images, 8 classes), embedded decoder; about 20 minutes on 2 cores with 3 seeds",
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
            data="",
            align=Align(optimisation=Optimisation(epochs=12, least_steps=600)),
            train=Train(optimisation=Optimisation(epochs=12, least_steps=600)),
        ),
    ),
    "cifar10-dream": cifar("cifar10", "CIFAR-10 (hub) with DREAM-OOD's constants for CIFAR-100, for it is not in the paper"),
    "cifar100-dream": cifar("cifar100", "CIFAR-100 (hub) with DREAM-OOD's constants"),
    # The published code fine-tunes a cross-entropy classifier here (20 epochs, rate 0.001, batch 80). From scratch such a budget
    # would train nothing: this is the budget of its other trainings on ImageNet-100.
    "imagenet100-dream": Preset(
        about="ImageNet-100 (--data FOLDER) with DREAM-OOD's constants; needs a GPU and Stable Diffusion 1.4",
        config=Config(
            data="",
            classes="imagenet100",
            size=224,
            align=Align(backbone="resnet34", optimisation=IMAGENET),
            sample=Sample(options=dream_options(sigma=0.03, boundary=200 / 1000), per_class=1000),
            decode=DREAM_DECODE,
            train=dream_train(IMAGENET, beta=1.0),
        ),
    ),
    "fashion-id": Preset(
        about="all of Fashion-MNIST with imagined inliers (DREAM-ID): accuracy on corrupted images; embedded decoder",
        config=Config(
            data="fashion-full",
            align=Align(optimisation=Optimisation(epochs=4)),
            sample=Sample(options={"kind": "inlier", "boundary": 1.0, "cosine": 0.96, "kept": 1}, per_class=400),
            train=Train(loss="cross_entropy", reconstructed_share=0.0, optimisation=Optimisation(epochs=6)),
        ),
    ),
    "imagenet100-dream-id": Preset(
        about="ImageNet-100 (--data FOLDER) with DREAM-ID's constants; needs a GPU and Stable Diffusion 1.4",
        config=Config(
            data="",
            classes="imagenet100",
            size=224,
            align=Align(backbone="resnet34", optimisation=IMAGENET),
            sample=Sample(options=INLIERS, per_class=1000),
            decode=DREAM_DECODE,
            train=Train(
                backbone="resnet34",
                loss="cross_entropy",
                optimisation=IMAGENET,
                ratio=256 / 160,
                reconstructed_share=0.0,
                grey=0.0,
            ),
        ),
    ),
}
