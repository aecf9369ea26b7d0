"""Named configurations, each beside what it costs and what it attained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .config import (
    AlignConfig,
    Config,
    DecodeConfig,
    EvaluateConfig,
    FilterConfig,
    Optimisation,
    ReconstructConfig,
    RegularizeConfig,
    SampleConfig,
    ShiftConfig,
    TrainConfig,
)  # fmt: skip
from .core.options import Option

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A configuration and one line about it."""

    config: Config
    about: str


# What follows are the constants of DREAM-OOD's published code (deeplearning-wisc/dream-ood at fcb89c6);
# docs/faithfulness.md says where each stands there and what differs all the same.
def dream_options(sigma: float, boundary: float) -> dict[str, Option]:
    """The sampler's options for the published noise `sigma` (a standard deviation, at width 768)."""
    cosine = round(1 / math.sqrt(1 + 768 * sigma**2), 5)
    return {
        "k": 300, "boundary": boundary, "cosine": cosine, "candidates": 1500, "anchors": 50, "kept": 2,
        "select": "distance", "count_self": False, "shared_noise": False, "images": 1,
    }  # fmt: skip


DREAM_DECODE = DecodeConfig(
    source="CompVis/stable-diffusion-v1-4", scheduler="pndm", steps=50, guidance=7.5, tile=0
)
INLIERS: dict[str, Option] = dream_options(sigma=0.01, boundary=1.0) | {
    "kind": "inlier",
    "anchors": 100,
    "kept": 1,
}
CIFAR = Optimisation(epochs=200, batch=256, lr=0.1, crop_padding=4)
IMAGENET = Optimisation(epochs=100, batch=160, lr=0.1, min_area=0.08)


# As many outliers as ID images in a batch, and nothing that the published code does not have.
PUBLISHED = RegularizeConfig(ratio=1.0, grayscale_prob=0.0, outlier_aug_prob=0.0)
# Other things by name, put in known images; and twins that keep what the known ones show.
WORDS, TWINS = SampleConfig(sampler="words"), ReconstructConfig(twins=True)
NO_RECONSTRUCTION, NO_FILTER = ReconstructConfig(detail=False, frac=0.0), FilterConfig(filters=())


def published(backbone: str, optimisation: Optimisation) -> TrainConfig:
    """A training as published: no image is softened."""
    return TrainConfig(backbone=backbone, soften=0.0, optimisation=optimisation)


def garments(epochs: int) -> TrainConfig:
    """A training whose images are as sharp as they are: on garments softened ones cost near-OOD, chosen on
    classes left out (docs/experiments.md).
    """
    return TrainConfig(soften=0.0, optimisation=Optimisation(epochs=epochs))


def cifar(name: str, about: str) -> Preset:
    """A CIFAR data set of the hub with the constants for CIFAR-100."""
    return Preset(
        about=f"{about}; needs a GPU, Stable Diffusion 1.4, oodream[hub]",
        config=Config(
            data=f"hub:uoft-cs/{name}",
            classes=name,
            align=AlignConfig(pull=0.0, backbone="resnet34", optimisation=CIFAR),
            sample=SampleConfig(options=dream_options(sigma=0.07, boundary=50 / 500), per_class=1000),
            decode=DREAM_DECODE,
            reconstruct=NO_RECONSTRUCTION,
            filter=NO_FILTER,
            train=published("resnet34", CIFAR),
            regularize=replace(PUBLISHED, loss_options={"beta": 2.5}),
        ),
    )


# The published code fine-tunes a cross-entropy classifier here (20 epochs, rate 0.001, batch 80). From
# scratch such a budget would train nothing: this is the budget of its other trainings on ImageNet-100.
DREAM_100 = Config(
    data="",
    classes="imagenet100",
    size=224,
    align=AlignConfig(pull=0.0, backbone="resnet34", optimisation=IMAGENET),
    sample=SampleConfig(options=dream_options(sigma=0.03, boundary=200 / 1000), per_class=1000),
    decode=DREAM_DECODE,
    reconstruct=NO_RECONSTRUCTION,
    filter=NO_FILTER,
    train=published("resnet34", IMAGENET),
    regularize=replace(PUBLISHED, loss_options={"beta": 1.0}),
)

OAL_OPTIMISATION = Optimisation(epochs=100, batch=128, lr=0.005, crop_padding=4)


def oal(
    data: str, classes: str, backbone: str, optimisation: Optimisation, about: str, aligned: str = ""
) -> Preset:
    """OAL's constants, with outliers that meet the classifier and pairs that are true; `comparisons` has
    the code's losses. `aligned` is the encoder's network, where it is not the classifier's.
    """
    return Preset(
        about=f"{about} with OAL's constants; needs a GPU and Stable Diffusion 1.4",
        config=Config(
            data=data, classes=classes, size=224,
            align=AlignConfig(pull=0.0, backbone=aligned or backbone, optimisation=IMAGENET),
            sample=SampleConfig(options=dream_options(sigma=0.07, boundary=50 / 500), per_class=30),
            decode=replace(DREAM_DECODE, output="latents"),
            reconstruct=NO_RECONSTRUCTION,
            train=published(backbone, optimisation),
            regularize=replace(
                PUBLISHED,
                loss=("energy_logistic", "micl", "kd"),
                loss_options={"kd.logit": 4.0, "kd.feature": 8.0},
                finetune=True,
            ),
        ),
    )  # fmt: skip


# Open-set splits of CIFAR-10. The first one is ours, and hard: cats and trucks have close relatives among the
# known classes. The five random ones are those of Neal et al. 2018, "Open set learning with counterfactual
# images" (lwneal/counterfactual-open-set at b03175a, generativeopenset/datasets/download_cifar10.py). ARPL
# and its successors use other ones, of which the first two are the same (iCGY96/ARPL at 4bc4fae, split.py).
SIX_VS_FOUR = {
    "cifar10-6v4": ("cat", "deer", "horse", "truck"),
    "cifar10-6v4-1": ("cat", "frog", "horse", "ship"),
    "cifar10-6v4-2": ("automobile", "bird", "deer", "frog"),
    "cifar10-6v4-3": ("bird", "cat", "deer", "truck"),
    "cifar10-6v4-4": ("airplane", "automobile", "bird", "frog"),
    "cifar10-6v4-5": ("deer", "dog", "frog", "truck"),
}


def edited(strength: float) -> DecodeConfig:
    """Known images, denoised from this share of the steps on."""
    return DecodeConfig(decoder="image_to_image", options={"strength": strength})


def six_vs_four(unknown: tuple[str, ...]) -> Preset:
    """CIFAR-10 with four unknown classes, on a budget for two cores."""
    return Preset(
        about=f"CIFAR-10 (--root FOLDER), {', '.join(unknown)} unknown; made for --decode.source FOLDER",
        config=Config(
            data="cifar10",
            unknown=unknown,
            max_per_class=2000,
            align=AlignConfig(optimisation=Optimisation(epochs=12)),
            sample=replace(WORDS, per_class=400),
            decode=edited(0.5),
            reconstruct=TWINS,
            train=TrainConfig(optimisation=Optimisation(epochs=12)),
        ),
    )


FOLDER = Config(
    data="",
    align=AlignConfig(optimisation=Optimisation(epochs=12, min_steps=600)),
    train=TrainConfig(optimisation=Optimisation(epochs=12, min_steps=600)),
)
# The embedded decoder has never seen what a user's images show, so its outliers may teach the wrong things:
# the first detector is the one that then loses least.
CAREFUL = EvaluateConfig(detectors=("energy_gen", "energy", "msp", "max_logit", "knn", "mahalanobis"))
PRESETS = {
    "demo": Preset(
        about="a sample of Fashion-MNIST (12,000 images, 8 classes), embedded decoder; 3 minutes on 2 cores",
        config=Config(
            align=AlignConfig(optimisation=Optimisation(epochs=7)),
            sample=SampleConfig(per_class=100),
            reconstruct=ReconstructConfig(share=0.5, detail=False),
            train=garments(7),
            evaluate=EvaluateConfig(resamples=300),
            shift=ShiftConfig(n_corrupted=500),
        ),
    ),
    "fashion": Preset(
        about="all of Fashion-MNIST (48,000 images, 8 classes), embedded decoder; 20 minutes for 3 seeds",
        config=Config(
            data="fashion-full",
            align=AlignConfig(optimisation=Optimisation(epochs=4)),
            sample=SampleConfig(per_class=400),
            reconstruct=ReconstructConfig(detail=False),
            train=garments(6),
        ),
    ),
    "doodles": Preset(
        about="Quick, Draw! (3,360 drawings of 42 things), embedded decoder; minutes on 2 cores",
        config=Config(
            data="doodles",
            align=AlignConfig(optimisation=Optimisation(epochs=25)),
            sample=replace(WORDS, options={"words": "world"}, per_class=40),
            decode=edited(0.7),
            reconstruct=TWINS,
            # Features of one mean and spread in every image, chosen on classes left out of the drawings.
            train=TrainConfig(backbone="resnet8-z", optimisation=Optimisation(epochs=25)),
            evaluate=replace(CAREFUL, resamples=300),
        ),
    ),
    "folder": Preset(
        about="your folder of class folders, 32 pixels, embedded decoder",
        config=replace(FOLDER, evaluate=CAREFUL),
    ),
    "folder-id": Preset(
        about="your folder with DREAM-ID: imagined inliers; with --shifted FOLDER, accuracy there",
        config=replace(
            FOLDER,
            sample=SampleConfig(options={"kind": "inlier", "kept": 1}, per_class=150),
            reconstruct=NO_RECONSTRUCTION,
            regularize=RegularizeConfig(loss=("cross_entropy",)),
            evaluate=CAREFUL,
        ),
    ),
    "folder-edited": Preset(
        about="your folder, other things put into its images; made for --decode.source FOLDER",
        config=replace(
            FOLDER,
            sample=WORDS,
            decode=edited(0.5),
            reconstruct=TWINS,
        ),
    ),
    **{name: six_vs_four(unknown) for name, unknown in SIX_VS_FOUR.items()},
    "cifar10-dream": cifar(
        "cifar10", "CIFAR-10 (hub) with DREAM-OOD's constants for CIFAR-100, for it is not in the paper"
    ),
    "cifar100-dream": cifar("cifar100", "CIFAR-100 (hub) with DREAM-OOD's constants"),
    "imagenet100-dream": Preset(
        about="ImageNet-100 (--data FOLDER) with DREAM-OOD's constants; needs a GPU and Stable Diffusion 1.4",
        config=DREAM_100,
    ),
    "fashion-id": Preset(
        about="the demo's images with DREAM-ID: imagined inliers, accuracy on corrupted images",
        config=Config(
            align=AlignConfig(optimisation=Optimisation(epochs=7)),
            sample=SampleConfig(options={"kind": "inlier", "kept": 1}, per_class=150),
            reconstruct=NO_RECONSTRUCTION,
            train=TrainConfig(optimisation=Optimisation(epochs=7)),
            regularize=RegularizeConfig(loss=("cross_entropy",)),
            evaluate=EvaluateConfig(resamples=300),
        ),
    ),
    "imagenet100-dream-id": Preset(
        about="ImageNet-100 (--data FOLDER) with DREAM-ID's constants; needs a GPU and Stable Diffusion 1.4",
        config=replace(
            DREAM_100,
            sample=SampleConfig(options=INLIERS, per_class=1000),
            regularize=replace(PUBLISHED, loss=("cross_entropy",), ratio=256 / 160),
        ),
    ),
    "fashion-oal": Preset(
        about="the demo's images with OAL: 120 outliers that stay latents, contrast and distillation",
        config=Config(
            align=AlignConfig(optimisation=Optimisation(epochs=7)),
            sample=SampleConfig(per_class=15),
            decode=DecodeConfig(output="latents", steps=4),
            reconstruct=NO_RECONSTRUCTION,
            train=garments(7),
            regularize=RegularizeConfig(loss=("energy_logistic", "micl", "kd"), outlier_aug_prob=0.8),
            evaluate=EvaluateConfig(resamples=300),
        ),
    ),
    "cifar10-oal": oal("hub:uoft-cs/cifar10", "cifar10", "resnet18-224", OAL_OPTIMISATION, "CIFAR-10 (hub)"),
    "cifar100-oal": oal(
        "hub:uoft-cs/cifar100", "cifar100", "resnet18-224", OAL_OPTIMISATION, "CIFAR-100 (hub)"
    ),
    # The published code begins with torchvision's ResNet-50: from scratch this rate would train nothing.
    "imagenet-oal": oal(
        "",
        "",
        "timm:resnet50.tv_in1k",
        replace(OAL_OPTIMISATION, epochs=50, lr=5e-5, min_area=0.08),
        "ImageNet (--data FOLDER) and a trained ResNet-50 (oodream[timm])",
        aligned="resnet50-224",
    ),
}
