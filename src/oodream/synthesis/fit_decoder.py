"""The verb `fit-decoder`: trains a small Stable Diffusion from captioned images and writes it as a diffusers
folder.

Four parts, in order: a byte-level BPE tokenizer on the captions, an AutoencoderKL, then a CLIP text
transformer and a U-Net together on the cached latents (v-prediction, dropped captions for classifier-free
guidance, exponential moving average). Each part resumes from its last saved state by the same call. With
`start`, an existing decoder goes on learning instead: its tokenizer and VAE are kept. This is for domains
Stable Diffusion does not know, and it made the embedded default.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..config import FitDecoderConfig
from ..core.files import atomic_folder, read_json, write_json
from ..core.folders import held, write_hashes
from ..core.options import ConfigError, to_json
from ..core.seeding import seeded
from .errors import DecoderError
from .fitting.prompts import name_and_template, plain
from .fitting.tokenizer import fit_tokenizer, is_damaged, save_complete
from .fitting.unet import build_pipeline, fit_unet
from .fitting.vae import encode_all, fit_vae
from .names import NAMES, check_without, known_to
from .pipeline import INDEX, load_pipeline
from .text import check_prompt

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from ..data.images import Images

__all__ = ["check_sizes", "fit_decoder"]

MAY_CHANGE = ("vae_steps", "unet_steps", "unet_seconds", "save_every", "device", "without")
"""options that a resumed fitting may have otherwise"""


def fit_decoder(
    images: Images,
    captions: Sequence[str],
    weights: torch.Tensor,
    out: Path,
    config: FitDecoderConfig,
    device: torch.device,
) -> dict[str, Any]:
    """Trains on N images (uint8, `config.resolution` pixels) with N captions, shown in proportion to
    `weights` (N,).

    A caption is what a picture shows, and is put into `config.templates`; or it is a whole prompt with the
    name marked, "a doodle of a {cat}".

    Writes a `StableDiffusionPipeline` folder to `out` (half precision), with the names that it has learnt,
    and returns its sizes and losses. Working state lies in `out` + ".work", from which a second call goes on.

    Raises ValueError where that state is of other images or another configuration, ConfigError for a template
    or sizes that cannot be used, DataError for captions, or names that `start` has learnt, which
    `config.without` excludes, DecoderError for a `start` that cannot be loaded or is of another resolution,
    and FloatingPointError where the loss is not finite.
    """
    for template in config.templates:
        check_prompt(template, "templates")
    check_without(map(plain, captions), config.without, config.start)
    learnt = known_to(config.start) if config.start else set()
    if not config.start:
        check_sizes(config)
    work = out.with_name(out.name + ".work")
    with held(work, f"Another oodream process is fitting {out}. Wait for it or choose another folder."):
        begin(work, config, images)
        return fitted(images, captions, weights, out, config, device, work, learnt)


def fitted(
    images: Images,
    captions: Sequence[str],
    weights: torch.Tensor,
    out: Path,
    config: FitDecoderConfig,
    device: torch.device,
    work: Path,
    learnt: set[str] | None,
) -> dict[str, Any]:
    """What `fit_decoder` returns, when all is known to be right and `work` is this process's."""
    if config.start:
        pipeline, vae_loss = started(config, work / "tokenizer"), None
        posteriors = encode_all(pipeline.vae.to(device), images, device, work / "latents.safetensors")
    else:
        tokenizer = fit_tokenizer(list(map(plain, captions)), config, work / "tokenizer")
        vae, vae_loss = fit_vae(images, weights, config, work, device)
        posteriors = encode_all(vae, images, device, work / "latents.safetensors")
        vae.register_to_config(scaling_factor=round(1 / posteriors.sample_std(weights), 5))
        pipeline = build_pipeline(tokenizer, vae, config)
    unet_loss = fit_unet(pipeline, posteriors, captions, weights, config, work, device)
    names = {name_and_template(caption)[0] for caption in captions}
    publish(pipeline, out, None if learnt is None else sorted(learnt | names))
    parameters = {
        name: sum(p.numel() for p in getattr(pipeline, name).parameters())
        for name in ("vae", "text_encoder", "unet")
    }
    return {"parameters": parameters, "vae_loss": vae_loss, "unet_loss": unet_loss, "images": len(images)}


def check_sizes(config: FitDecoderConfig) -> None:
    """Raises ConfigError for sizes that the networks cannot have."""
    if not config.vae_channels or not config.unet_channels:
        raise ConfigError("vae_channels and unet_channels need at least one width each.")
    if config.resolution % (factor := 2 ** (len(config.vae_channels) - 1)):
        raise ConfigError(
            f"resolution must be a multiple of {factor}, as the autoencoder halves it at each of its "
            f"vae_channels but the first; not {config.resolution}."
        )
    if config.text_width % 4:
        raise ConfigError(
            f"text_width must be a multiple of 4, the attention heads; not {config.text_width}."
        )


def begin(work: Path, config: FitDecoderConfig, images: Images) -> None:
    """Marks the folder of the working state; ValueError where it is of other images or another
    configuration.
    """
    options = {key: value for key, value in to_json(config).items() if key not in MAY_CHANGE}
    identity = {"config": options, "images": images.fingerprint()}
    if (work / "identity.json").exists() and read_json(work / "identity.json") != identity:
        raise ValueError(
            f"{work} was begun with other images or another configuration; remove it to start afresh."
        )
    write_json(work / "identity.json", identity, sealed=True)


def started(config: FitDecoderConfig, folder: Path) -> StableDiffusionPipeline:
    """The decoder `config.start`, its tokenizer made complete in `folder`; DecoderError where its resolution
    is another.
    """
    from transformers import CLIPTokenizer

    pipeline: StableDiffusionPipeline = load_pipeline(config.start, torch.device("cpu"))
    resolution = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    if resolution != config.resolution:
        raise DecoderError(
            f"The decoder {config.start} makes images of {resolution} pixels; fit it with "
            f"--resolution {resolution}."
        )
    if not folder.exists() or is_damaged(folder):
        save_complete(pipeline.tokenizer, folder)
    pipeline.tokenizer = CLIPTokenizer.from_pretrained(folder)
    with seeded(config.seed, "fit-decoder", "started"):
        pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
    pipeline.vae.eval().requires_grad_(False)
    return pipeline


def publish(pipeline: StableDiffusionPipeline, out: Path, names: Sequence[str] | None) -> None:
    """Writes the pipeline in half precision, without paths of this machine, all names that it has learnt, if
    these are known, and the hashes of all files, which `load_pipeline` compares.
    """
    with atomic_folder(out) as folder:
        if names is not None:
            write_json(folder / NAMES, names)
        pipeline.to(dtype=torch.float16).save_pretrained(folder)
        for file in (folder / INDEX, *folder.glob("*/config.json")):
            values = read_json(file)
            values.pop("_name_or_path", None)
            # transformers would load what this says and diffusers float32, and the two do not multiply.
            write_json(file, values | ({"dtype": "float32"} if file.parent.name == "text_encoder" else {}))
        write_hashes(folder)
