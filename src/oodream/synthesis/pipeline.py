"""Loads a diffusers pipeline of the Stable Diffusion family, from safetensors only, and says what its folder
lacks. And an autoencoder that takes the place of its VAE.

A folder may hold its weights as `save_pretrained` writes them: whole, in shards, as a variant ("fp16"), or
some parts so and some otherwise. A safety checker and what belongs to it are never loaded.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..core.errors import StoreError, are, brief, first_line, listed, shown
from ..core.files import ASSETS, read_json
from ..core.folders import HASHES, changed_files
from .errors import DecoderError
from .parts import check_classes, check_configs, check_indexes, load_network

__all__ = [
    "AUTOENCODERS",
    "EMBEDDED",
    "INDEX",
    "check_folder",
    "load_autoencoder",
    "load_pipeline",
    "variant_of",
]

EMBEDDED = ASSETS / "decoder"
INDEX = "model_index.json"  # of a diffusers folder: which parts it has
PARTS = {
    "StableDiffusionPipeline": ("tokenizer", "text_encoder", "unet", "vae", "scheduler"),
    "StableDiffusionXLPipeline": (
        "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "unet", "vae", "scheduler",
    ),
}  # fmt: skip
UNUSED: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        "safety_checker": None, "requires_safety_checker": False, "feature_extractor": None,
        "image_encoder": None,
    },
    "StableDiffusionXLPipeline": {"feature_extractor": None, "image_encoder": None},
}  # fmt: skip
AUTOENCODERS = "AutoencoderTiny", "AutoencoderKL"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load_pipeline(source: str, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """The pipeline at `source`: a folder, a hub id, or "embedded". Its networks are of `dtype`; without one,
    float16 on CUDA and float32 elsewhere.

    Raises DecoderError where there is none, or a part of it is missing, pickled or of another kind.
    """
    import diffusers
    import transformers

    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    folder = EMBEDDED if source == "embedded" else Path(source)
    if not folder.is_dir() and not HUB_ID.fullmatch(source):
        raise DecoderError(
            f"There is no decoder folder {source}. Name a diffusers folder, a hub id (owner/name) or "
            f"'embedded'."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = folder if folder.is_dir() else _downloaded(source)
            check_folder(folder)
            pipeline = _loaded(folder, dtype)
    except DecoderError:
        raise
    except Exception as error:  # whatever these libraries raise of a folder that is not what it says
        raise DecoderError(f"The decoder {source} cannot be loaded: {first_line(error)}") from error
    for encoder in (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if encoder is not None and not isinstance(encoder.get_input_embeddings(), torch.nn.Embedding):
            raise DecoderError(
                f"{source}: its {type(encoder).__name__} has no token table, in which vectors could be "
                f"sampled."
            )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    _upcast(pipeline, pipeline.vae)
    return pipeline


def load_autoencoder(folder: str, pipeline: Any) -> Any:
    """The autoencoder in `folder`, as `save_pretrained` writes one, on the pipeline's device and of its type.

    Raises DecoderError where there is none, or its latents are not of the pipeline's size.
    """
    import diffusers

    if not (Path(folder) / "config.json").is_file():
        raise DecoderError(f"There is no autoencoder in {folder}: a diffusers folder has a config.json.")
    kind = read_json(Path(folder) / "config.json").get("_class_name")
    if kind not in AUTOENCODERS:
        raise DecoderError(f"{folder} holds a {kind}, and one of these is needed: {', '.join(AUTOENCODERS)}.")
    try:
        vae = load_network(getattr(diffusers, kind), Path(folder), dtype=pipeline.unet.dtype)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DecoderError(f"The autoencoder {folder} cannot be loaded: {error}") from error
    channels, factor = _latent_size(vae)
    if (channels, factor) != (needed := _latent_size(pipeline.vae)):
        raise DecoderError(
            f"The autoencoder {folder} has latents of {channels} channels, of an image's size / {factor}; "
            f"this decoder's have {needed[0]}, of the size / {needed[1]}."
        )
    vae.to(pipeline.device)
    _upcast(pipeline, vae)
    return vae


def _latent_size(vae: Any) -> tuple[int, int]:
    """The channels of an autoencoder's latents, and by how much these are smaller than an image."""
    return vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)


def _upcast(pipeline: Any, vae: Any) -> None:
    """SDXL's VAE overflows in half precision."""
    if hasattr(pipeline, "text_encoder_2") and vae.config.force_upcast:
        vae.to(torch.float32)


def _downloaded(source: str) -> Path:
    """This machine's folder of a hub's pipeline, with weights of the variant "fp16" for want of others."""
    from diffusers import DiffusionPipeline

    kind = _kind(DiffusionPipeline.load_config(source), source)
    options = {"use_safetensors": True, **UNUSED[kind]}
    try:
        return Path(DiffusionPipeline.download(source, **options))
    except (OSError, ValueError) as error:
        try:
            return Path(DiffusionPipeline.download(source, variant="fp16", **options))
        except (OSError, ValueError):
            raise error from None


def _loaded(folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline of a folder that `check_folder` has found whole."""
    import diffusers

    index, variant = read_json(folder / INDEX), variant_of(folder)
    kind, networks = _kind(index, shown(folder)), {}
    for part in _weight_parts(folder):
        library, name = index[part]
        network = getattr(importlib.import_module(library), name)
        own = variant if variant in _variants(folder / part) else None
        networks[part] = load_network(network, folder / part, dtype, own)
    return getattr(diffusers, kind).from_pretrained(folder, **networks, **UNUSED[kind])


def check_folder(folder: Path) -> None:
    """Raises DecoderError unless every part of the pipeline is there; diffusers would invent a missing
    tokenizer.
    """
    check_hashes(folder)
    if not (folder / INDEX).is_file():
        raise DecoderError(f"{folder} is not a diffusers pipeline: it has no {INDEX}.")
    for part in _parts(folder):
        if not any((folder / part).glob("*.json")):
            raise DecoderError(f"{folder} cannot be loaded: its part {part!r} is missing.")
        check_configs(folder / part)
        check_indexes(folder / part)
    variant_of(folder)


def check_hashes(folder: Path) -> None:
    """Raises DecoderError where a file of a decoder that `fit-decoder` wrote is not as it was written."""
    try:
        changed = changed_files(folder)
    except StoreError as error:
        raise DecoderError(f"{error} Fit the decoder again.") from error
    if changed:
        raise DecoderError(
            f"{are([*map(str, changed)])} missing, damaged or changed since the decoder was fitted. Restore "
            "what is, or fit the decoder again. Where you have changed it yourself, remove "
            f"{folder / HASHES}."
        )


def variant_of(folder: Path) -> str | None:
    """Which variant of the weights to load; None where all parts have ordinary weights, and "fp16" rather
    than another.

    Raises DecoderError where a part has no safetensors, and where no variant serves all parts that need one.
    """
    variants = {part: _variants(folder / part) for part in _weight_parts(folder)}
    if pickled := [part for part, names in variants.items() if not names]:
        raise DecoderError(
            f"{folder}: the weights of {listed(pickled)} are missing or pickled, and a pickle can run "
            f"anything. Load the pipeline where you trust it and "
            f"save_pretrained(folder, safe_serialization=True)."
        )
    needed = {part: names for part, names in variants.items() if "" not in names}
    if not needed:
        return None
    common = sorted(set.intersection(*needed.values()), key=lambda name: (name != "fp16", name))
    if not common:
        described = "; ".join(f"{part}: {', '.join(sorted(names))}" for part, names in needed.items())
        raise DecoderError(f"{folder}: its parts have weights of no common variant ({described}).")
    return common[0]


def _variants(part: Path) -> set[str]:
    """The variants of the weights in a part's folder; "" stands for ordinary ones.

    Files are called STEM[.VARIANT].safetensors, and shards STEM[.VARIANT]-00001-of-00002.safetensors.
    """
    stems = (file.name.removesuffix(".safetensors") for file in part.glob("*.safetensors"))
    return {re.sub(r"-\d+-of-\d+$", "", stem.partition(".")[2]) for stem in stems}


def _weight_parts(folder: Path) -> Sequence[str]:
    return [part for part in _parts(folder) if part.startswith(("text_encoder", "unet", "vae"))]


def _parts(folder: Path) -> Sequence[str]:
    index = read_json(folder / INDEX)
    if not isinstance(index, dict):
        raise DecoderError(f"{shown(folder)}: its {INDEX} is no JSON object.")
    return PARTS[_kind(index, shown(folder))]


def _kind(index: Mapping[str, Any], source: str) -> str:
    """Which of `PARTS` a pipeline is; raises DecoderError for others, and for parts of unknown classes."""
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PARTS:
        called = brief(kind).strip("'")
        raise DecoderError(f"{source} holds a {called}, and one of these is needed: {', '.join(PARTS)}.")
    check_classes(index, PARTS[kind], source)
    return kind
