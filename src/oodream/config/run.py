"""The options of a run, in sections.

A section is the input of the stages that read it: all of its fields, hashed, so a new field cannot leave a
stale stage behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ..core.options import OF, Option, Range, Section
from .types import Count, CountOrNone, Fraction, NotNegative, Positive, Seed

__all__ = [
    "PROMPT", "AlignConfig", "Config", "DecodeConfig", "EvaluateConfig", "FilterConfig", "GuardConfig",
    "LatentsConfig", "Optimisation", "ReconstructConfig", "RegularizeConfig", "ReportConfig", "SampleConfig",
    "ShiftConfig", "TrainConfig",
]  # fmt: skip

PROMPT = "A high-quality image of the {}"


@dataclass(frozen=True, kw_only=True)
class Optimisation(Section):
    """Budget and optimiser: SGD, Nesterov momentum 0.9, one cycle (warm-up over a fifth, cosine to zero)."""

    epochs: Count = 6
    """passes over the ID training images"""
    min_steps: CountOrNone = field(default=0, metadata={OF: "epochs"})
    """more passes are made until there are as many steps; for small data sets. Other `epochs` than a preset's
    take its steps away"""
    batch: Count = 128
    """ID images in a batch"""
    lr: Positive = 0.1
    """peak learning rate"""
    weight_decay: NotNegative = 5e-4
    """L2 penalty"""
    crop_padding: CountOrNone = 2
    """random shift, in pixels"""
    min_area: Annotated[float, Range(0, 1, "low")] = 1.0
    """below 1: in place of shifts, random crops of at least this share of the area, resized (ImageNet's usual
    is 0.08)"""
    flip: bool = True
    """random horizontal flip"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """of the network: bf16 (mixed with float32), fp32, or auto: bf16 on CUDA and on processors with matrix
    units for it (AMX), fp32 elsewhere"""

    def budget(self, images: int) -> tuple[int, int]:
        """The epochs of a training with so many ID images, and the steps of each."""
        steps = max(1, images // self.batch)
        return max(self.epochs, -(-self.min_steps // steps)), steps


@dataclass(frozen=True, kw_only=True)
class AlignConfig(Section):
    """The image encoder into the text's token space."""

    backbone: str = "resnet8"
    """network (see `oodream list`)"""
    temperature: Positive = 0.1
    """softmax temperature of the cosine logits"""
    pull: NotNegative = 20.0
    """weight of 1 - cosine to the own class vector beside the cross-entropy: where it holds an embedding, the
    decoder draws its class; 0: the papers' space"""
    init: str = ""
    """weights to begin with: a safetensors file or "scratch"; empty: those of the timm: or hf: name"""
    augmented_features: bool = False
    """take the features of augmented training images, as the published code does, not of the images"""
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(epochs=5))


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Section):
    """Where vectors are sampled."""

    sampler: str = "knn"
    """sampler (see `oodream list`)"""
    options: dict[str, Option] = field(default_factory=dict, metadata={OF: "sampler"})
    """the sampler's options, as `k=300 cosine=0.8`"""
    per_class: Count = 200
    """vectors for every class"""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(Section):
    """Which generator turns vectors into images or latents, and how."""

    decoder: str = "stable"
    """decoder (see `oodream list`)"""
    options: dict[str, Option] = field(default_factory=dict, metadata={OF: "decoder"})
    """the decoder's own options, as `by=feature k=50`"""
    source: str = "embedded"
    """a diffusers folder, a hub id, or "embedded" """
    output: Literal["images", "latents"] = "images"
    """images (DREAM-OOD), or latents, which the VAE never decodes (OAL)"""
    scheduler: str = "dpm++"
    """dpm++, unipc, ddim, pndm, euler or lcm"""
    steps: Annotated[int, Range(1, 1000)] = 8
    """denoising steps"""
    guidance: NotNegative = 3.0
    """classifier-free guidance scale"""
    tile: CountOrNone = 16
    """images drawn together, a power of two; 0: as many as memory holds; halved when it runs out; no other
    batch size matters"""
    format: Literal["png", "jpg", "webp"] = "png"
    """of the image files"""
    prompt: str = PROMPT
    """prompt, with {} where the class name stands"""


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(Section):
    """Known things as the decoder shows them, so that its traces say nothing about ID and OOD."""

    detail: bool = True
    """lend imagined images and reconstructions what the VAE loses of random known images"""
    frac: Fraction = 0.25
    """share of every ID batch of the regularized classifier that is reconstructed"""
    share: Annotated[float, Range(0, 1, "low")] = 1.0
    """share of the training images of which there are reconstructions; a batch takes them from these"""
    twins: bool = False
    """reconstructions are twins of the imagined outliers, not what the VAE alone makes of known images: a
    twin is drawn as its outlier is, and from the name of its class in place of the outlier's vector"""


@dataclass(frozen=True, kw_only=True)
class FilterConfig(Section):
    """Which imagined images stay."""

    filters: tuple[str, ...] = ("auto",)
    """filters, in turn (see `oodream list`); auto: id_leak for outliers, class_drift for inliers"""
    options: dict[str, Option] = field(default_factory=dict)
    """their options: of the first one as `threshold=0.9`, of any as `id_leak.threshold=0.9`"""


@dataclass(frozen=True, kw_only=True)
class LatentsConfig(Section):
    """How latents reach the classifier, where the outliers stay latents."""

    adapter: str = "preview"
    """latent adapter (see `oodream list`); "none": only losses with networks of their own see latents"""
    options: dict[str, Option] = field(default_factory=dict, metadata={OF: "adapter"})
    """the adapter's options, as `steps=600`"""
    frac: Fraction = 0.25
    """share of every ID batch whose latents come along with the outliers' """
    min_outlier_weight: Fraction = 1.0
    """below 1: an outlier's latent is mixed with that of a known image, and keeps at least this weight"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """Both classifiers of a run, the baseline and the regularized one, on one budget."""

    backbone: str = "resnet8"
    """network (see `oodream list`)"""
    init: str = ""
    """weights to begin with: a safetensors file, a classifier's folder or "scratch"; empty: those of the
    timm: or hf: name"""
    soften: Fraction = 0.75
    """chance that a training image, known or imagined, is blurred or sharpened, with grain, so that a
    decoder's softness does not tell which it is"""
    augmentation: Literal["none", "augmix", "randaugment", "autoaugment"] = "none"
    """what else every training image, known or imagined, goes through before it is shifted, cropped and
    mirrored: AugMix, RandAugment or AutoAugment (on the CPU, by Pillow)"""
    optimisation: Optimisation = field(default_factory=Optimisation)


@dataclass(frozen=True, kw_only=True)
class RegularizeConfig(Section):
    """What the regularized classifier has beside the known images."""

    loss: tuple[str, ...] = ("energy_logistic",)
    """losses, which add up with the cross-entropy that each has (see `oodream list`); one used twice is told
    apart as NAME@LABEL"""
    loss_options: dict[str, Option] = field(default_factory=dict, metadata={OF: "loss"})
    """their options: of the first one as `beta=1.0`, of any as `kd.logit=4`"""
    outliers: Literal["imagined", "known", "real"] = "imagined"
    """imagined outliers (or inliers, where the sampler gives such); or a control in their place: `known`
    training images, changed as known_transform says, or `real` images of other things, the oracle of
    outliers"""
    known_transform: Literal[
        "varied", "mixed", "cut", "shuffled", "inverted", "structured", "augmix", "randaugment",
        "autoaugment", "attributed",
    ] = "varied"  # fmt: skip
    """what known images in place of imagined ones become: varied, or mixed with one of another class, cut
    (a box of one of another class is in them), shuffled in tiles, inverted, structured (mixed with fractals,
    PixMix), augmented by AugMix, RandAugment or AutoAugment, or attributed (moved along the gradient of their
    class's logit, ASCOOD); these are shown as imagined ones would be, and in place of inliers still show
    their class"""
    known_step: Positive = 10.0
    """of `attributed`: how far an image is moved, in the published code's units"""
    real: str = ""
    """where the real outliers lie: a folder of pictures, or "world", the data set's own"""
    finetune: bool = False
    """begin with this run's baseline classifier of the same seed"""
    teacher: str = ""
    """a classifier's folder, for a loss that distils; empty: the baseline classifier of the same seed"""
    max_outliers: CountOrNone = 0
    """of the imagined images that are kept, at most the first so many are used (they take turns by class); 0:
    all"""
    ratio: NotNegative = 0.5
    """imagined images, outliers or inliers, beside every ID image"""
    inlier_weight: NotNegative = 1.0
    """of an imagined inlier in the cross-entropy, where a real image weighs 1"""
    grayscale_prob: Fraction = 0.5
    """chance that an imagined image is turned gray where ID images are, so that colour alone does not tell
    them apart"""
    outlier_aug_prob: Fraction = 0.25
    """chance that an outlier is shown turned, stretched and moved, and chance that it is shown in other
    tones, each time anew"""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Section):
    """What is measured."""

    detectors: tuple[str, ...] = ("energy", "energy_gen", "msp", "max_logit", "knn", "mahalanobis")
    """detectors (see `oodream list`); the first one is the headline's; one used twice is told apart as
    NAME@LABEL"""
    detector_options: dict[str, Option] = field(default_factory=dict)
    """their options: of any as `ash.percentile=0.8`"""
    n_far: Count = 1000
    """images in each built-in far-OOD set"""
    ood_ratio: NotNegative = 0.0
    """cuts OOD sets to this many images for every ID test image (the published code: 0.2); 0: whole sets"""
    fpr95_nearest: bool = False
    """FPR95 where 95 % is nearest, as in the published code, and not where it is first reached"""
    resamples: CountOrNone = 500
    """bootstrap resamples behind every interval"""


@dataclass(frozen=True, kw_only=True)
class GuardConfig(Section):
    """The guard that is deployed."""

    detector: str = ""
    """one of the detectors that are evaluated; empty: the first"""
    alpha: Annotated[float, Range(0, 1, "both")] = 0.05
    """share of known images that the guard may flag"""
    confidence: Annotated[float, Range(0, 1, "high")] = 0.95
    """that the guard's threshold keeps to that share; 0: it does on average over draws of the known test
    images"""
    per_class: bool = False
    """a threshold for each class that a picture is taken for, where enough known test images are"""


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(Section):
    """Accuracy on known classes that look otherwise."""

    n_corrupted: CountOrNone = 1000
    """ID test images that are corrupted, in every way and severity"""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Section):
    """What is drawn for the report alone."""

    max_classes: Count = 40
    """classes that the report shows pictures of"""
    samples_per_class: Count = 8
    """pictures of every such class's plain prompt"""
    strips: CountOrNone = 6
    """classes whose surroundings in the latent space are drawn"""
    features: CountOrNone = 128
    """known images whose features are drawn as they are, without noise, to see whether they show their
    class"""


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """A whole run, from labelled images to the report."""

    data: str = "fashion"
    """a folder of class folders, hub:NAME, or a data set by name: "fashion", "doodles", "cifar10", … """
    root: str = ""
    """folder that a data set chosen by name is read from, such as CIFAR-10 in any of its forms"""
    classes: str = ""
    """class list (cifar10, cifar100, imagenet100) or a TOML file; none: the data's own, or its folders"""
    unknown: tuple[str, ...] = ()
    """classes of the data that are unknown: never trained on, and their test images are a near-OOD set"""
    max_per_class: CountOrNone = 0
    """at most this many training images of every class, drawn by the seed; 0: all"""
    ood: tuple[str, ...] = ()
    """folders of OOD test images: FOLDER, NAME=FOLDER, or like the classes near=FOLDER, near:NAME=FOLDER; the
    built-in far sets are used besides"""
    shifted: tuple[str, ...] = ()
    """folders whose class folders show known classes otherwise (ImageNet-A), besides corrupted test images"""
    validate: tuple[str, ...] = ()
    """classes to leave out and measure on, in place of every test set; for choosing options"""
    size: Annotated[int, Range(4, 4096)] = 32
    """width and height of all images, in pixels"""
    white: NotNegative = 0.0
    """value of white in pictures of 16 and 32 bits and of floats; 0: found from all training pictures"""
    seed: Seed = 0
    """of everything random"""
    seeds: Count = 1
    """classifiers of each kind, trained with seeds 0, 1, …"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    align: AlignConfig = field(default_factory=AlignConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    regularize: RegularizeConfig = field(default_factory=RegularizeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
