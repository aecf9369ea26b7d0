"""Every option there is, as frozen dataclasses: field = flag = JSON key = argument. Nothing heavy is imported here.

They stand together, and not each above its verb, because `oodream --help` reads them and must not load PyTorch to do so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Option = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Budget and optimiser: SGD, Nesterov momentum 0.9, one cycle (linear warm-up over a fifth, cosine to zero)."""

    epochs: int = 6
    """passes over the ID training images"""
    least_steps: int = 0
    """more passes are made until there are as many steps; for small data sets"""
    batch: int = 128
    """ID images in a batch"""
    lr: float = 0.1
    """peak learning rate"""
    weight_decay: float = 5e-4
    """L2 penalty"""
    crop_padding: int = 2
    """random shift, in pixels"""
    least_area: float = 1.0
    """below 1: in place of shifts, random crops of at least this share of the area, resized (ImageNet's usual is 0.08)"""
    flip: bool = True
    """random horizontal flip"""
    precision: str = "auto"
    """of the network: bf16 (mixed with float32), fp32, or auto: bf16 on CUDA, fp32 elsewhere"""


@dataclass(frozen=True, kw_only=True)
class Align:
    """The image encoder into the text's token space."""

    backbone: str = "resnet8"
    """network (see `oodream list`)"""
    temperature: float = 0.1
    """of the cosine; the pull towards the class vector ends sooner the lower it is and the fewer the classes are"""
    init: str = ""
    """weights to begin with: a safetensors file or "scratch"; empty: those of the timm: or hf: name"""
    augmented_features: bool = False
    """take the features of augmented training images, as the published code does, in place of the images themselves"""
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(epochs=5))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Where vectors are sampled."""

    sampler: str = "knn"
    """sampler (see `oodream list`)"""
    options: dict[str, Option] = field(default_factory=dict)
    """the sampler's options, as `k 300 cosine 0.8` (where the preset has some, each is a flag of its own)"""
    per_class: int = 200
    """vectors for every class"""


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Which Stable Diffusion turns vectors into images, and how."""

    source: str = "embedded"
    """a diffusers folder, a hub id, or "embedded" """
    output: str = "images"
    """images (DREAM-OOD), or latents, which the VAE never decodes (OAL)"""
    scheduler: str = "dpm++"
    """dpm++, unipc, ddim, pndm, euler or lcm"""
    steps: int = 10
    """denoising steps"""
    guidance: float = 3.0
    """classifier-free guidance scale"""
    tile: int = 16
    """images drawn together, a power of two; 0: as many as memory holds; halved when it runs out; no other batch size matters"""
    format: str = "png"
    """of the image files: png, jpg or webp"""
    prompt: str = "A high-quality image of the {}"
    """prompt, with {} where the class name stands"""


@dataclass(frozen=True, kw_only=True)
class Train:
    """The classifier, plain and regularised, on one budget."""

    backbone: str = "resnet8"
    """network (see `oodream list`)"""
    init: str = ""
    """weights to begin with: a safetensors file, a classifier's folder, "scratch" or "plain" (this run's plain classifier of the
    same seed, for the regularised one); empty: those of the timm: or hf: name"""
    loss: tuple[str, ...] = ("energy_logistic",)
    """losses of the regularised classifier, which add up (see `oodream list`); one used twice is told apart as NAME@LABEL"""
    loss_options: dict[str, Option] = field(default_factory=dict)
    """their options: of the first one as `beta 1.0`, of any as `kd.logit 4`"""
    path: str = "preview"
    """how latents reach the classifier (see `oodream list`); "none": only losses with networks of their own see them"""
    path_options: dict[str, Option] = field(default_factory=dict)
    """the path's options, as `steps 600`"""
    latent_share: float = 0.25
    """share of every ID batch whose latents come along with the outliers' """
    least_outlier: float = 1.0
    """below 1: an outlier's latent is mixed with that of a known image, of which it keeps at least this share itself"""
    teacher: str = ""
    """a classifier's folder, for a loss that distils; empty: this run's plain classifier of the same seed"""
    most: int = 0
    """of the imagined images that are kept, at most the first so many are used (they take turns by class); 0: all"""
    reconstructed_share: float = 0.25
    """share of every ID batch that has been through the VAE, so that its traces say nothing about ID and OOD"""
    ratio: float = 0.5
    """imagined images, outliers or inliers, beside every ID image"""
    inlier_weight: float = 1.0
    """of an imagined inlier in the cross-entropy, where a real image weighs 1"""
    grey: float = 0.5
    """share of the imagined images turned grey where ID images are, so that colour alone does not tell them apart"""
    varied: float = 0.5
    """share of the outliers shown turned, stretched and moved, and share shown in other tones, anew each time: many of one; latents
    where the path draws them"""
    leak_threshold: float = 0.95
    """an outlier is dropped when the plain classifier gives its own class a higher probability"""
    drift_threshold: float = 0.0
    """an inlier is dropped when the plain classifier gives its own class a lower probability"""
    optimisation: Optimisation = field(default_factory=Optimisation)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """What is measured."""

    detectors: tuple[str, ...] = ("energy", "msp", "max_logit", "knn", "mahalanobis")
    """detectors (see `oodream list`); the first one is the headline's; one used twice is told apart as NAME@LABEL"""
    detector_options: dict[str, Option] = field(default_factory=dict)
    """their options: of any as `ash.percentile 0.8`"""
    n_far: int = 1000
    """images in each built-in far-OOD set"""
    n_corrupted: int = 1000
    """ID test images that are corrupted, in every way and severity, to see how far the accuracy holds"""
    ood_ratio: float = 0.0
    """cuts every OOD set to this many images for every ID test image (the published code: 0.2); 0: whole sets"""
    nearest: bool = False
    """FPR95 where 95 % is nearest, as in the published code, and not where it is first reached"""
    resamples: int = 500
    """bootstrap resamples behind every interval"""
    false_alarms: float = 0.05
    """share of known images that the run's guard may call unknown"""
    confidence: float = 0.95
    """that the guard's threshold keeps to that share; 0: it does on average over draws of the known test images"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run, from labelled images to the report."""

    data: str = "fashion"
    """a folder of class folders, hub:NAME, "fashion" (embedded sample) or "fashion-full" """
    classes: str = ""
    """class list: imagenet100, cifar100, cifar10 or a TOML file; without one, the folder's own classes.toml or its folders"""
    ood: tuple[str, ...] = ()
    """folders of OOD test images (near=FOLDER: like the classes); the built-in far sets are used besides"""
    shifted: tuple[str, ...] = ()
    """folders of class folders that show known classes otherwise (ImageNet-A, -V2); corrupted test images are used besides"""
    validate: tuple[str, ...] = ()
    """classes to leave out and measure on, with training images held back, in place of every test set; for choosing options"""
    size: int = 32
    """width and height of all images, in pixels"""
    seed: int = 0
    """of everything random"""
    seeds: int = 1
    """classifiers of each kind, trained with seeds 0, 1, …"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    decode: Decode = field(default_factory=Decode)
    align: Align = field(default_factory=Align)
    sample: Sample = field(default_factory=Sample)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How a network is measured on a protocol."""

    detectors: tuple[str, ...] = ("energy", "msp", "max_logit", "knn", "mahalanobis")
    """detectors (see `oodream list`); "all": every one that the network can serve"""
    detector_options: dict[str, Option] = field(default_factory=dict)
    """their options: of any as `ash.percentile 0.8`"""
    size: int = 0
    """width and height of all images, in pixels; 0: the classifier's, else the protocol's"""
    crop: float = 0.0
    """share of a picture's shorter side that is kept; 0: all of it for a classifier's folder, else the protocol's"""
    fit: int = 0
    """at most this many training images, drawn by the seed, to fit detectors to; 0: all"""
    most: int = 0
    """at most this many images of every set, drawn by the seed; 0: all"""
    search: str = ""
    """choose the detectors' options first: "val" on the protocol's validation sets, or a folder of unknown images of no test set,
    as a run's imagined outliers (RUN/images/imagined)"""
    seed: int = 0
    """of everything random"""
    resamples: int = 500
    """bootstrap resamples behind every interval"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


@dataclass(frozen=True, kw_only=True)
class FitDecoder:
    """Sizes, budget and optimisation of a small Stable Diffusion."""

    start: str = ""
    """an existing decoder that goes on learning (folder, hub id or "embedded"); its tokenizer, VAE and sizes are kept"""
    resolution: int = 32
    """width and height of its images, in pixels"""
    vae_channels: tuple[int, ...] = (32, 64, 64)
    """autoencoder widths; every level after the first halves the image"""
    unet_channels: tuple[int, ...] = (96, 160)
    """U-Net widths"""
    text_width: int = 128
    """width of the token table and the text transformer"""
    text_layers: int = 2
    """layers of the text transformer"""
    tokens: int = 24
    """longest prompt"""
    vocabulary: int = 4096
    """most tokens of the tokenizer"""
    vae_steps: int = 3000
    """training steps of the autoencoder"""
    unet_steps: int = 8000
    """training steps of U-Net and text transformer"""
    batch: int = 48
    """images in a batch"""
    vae_lr: float = 1e-3
    """peak learning rate of the autoencoder"""
    unet_lr: float = 7e-4
    """peak learning rate of U-Net and text transformer"""
    drop_caption: float = 0.1
    """share of captions dropped, for classifier-free guidance"""
    ema: float = 0.9995
    """decay of the weights' moving average"""
    templates: tuple[str, ...] = ("{}", "a picture of a {}", "A high-quality image of the {}")
    """prompts a caption is put into"""
    save_every: int = 250
    """steps between saved states and sample grids"""
    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
