"""Decodes vectors with any diffusers pipeline of the Stable Diffusion family: the embedded one, SD 1.x, 2.x, SDXL.

Each image depends on its own vector, class and seed. All networks run on batches of one fixed size (`tile`, padded), because the
last bits of a matrix product depend on its shape: so an image has the same bytes alone or among thousands.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...core import memory
from ...core.errors import listed
from ...core.files import ASSETS, read_json
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import ClassBook, Generated
from ..text import Conditioning, TextSide

EMBEDDED = ASSETS / "decoder"
PARTS = {
    "StableDiffusionPipeline": ("tokenizer", "text_encoder", "unet", "vae", "scheduler"),
    "StableDiffusionXLPipeline": (
        "tokenizer",
        "tokenizer_2",
        "text_encoder",
        "text_encoder_2",
        "unet",
        "vae",
        "scheduler",
    ),
}
MOST = 64  # images that are drawn together where memory allows: more are not faster
PROBE_STEPS = 2
NEEDED = f"and one of these is needed: {', '.join(PARTS)}"
SCHEDULERS = {
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",  # the papers'
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",  # for weights distilled for it
}


class DecoderError(ValueError):
    """A decoder cannot be loaded or used; the message says which part and what to do."""


@register("decoders", "stable")
class StableDecoder:
    """A Stable Diffusion pipeline with the classes' prompts prepared; `book` holds the class vectors.

    Images leave it `size` pixels wide (bicubic, antialiased), whatever the pipeline's own resolution.

    `source` is a diffusers folder or hub id ("embedded" is the one in this package); only safetensors are read. `steps` of
    `scheduler` and `guidance` (classifier-free) are per image. A tile of 0 is found when the first image is drawn: the largest that
    memory holds. When memory does not hold a tile, it is halved with a warning, and at last attention is computed in slices.
    Raises DecoderError when a part is missing.
    """

    def __init__(
        self, source: str = "embedded", *, names: Sequence[str], prompts: Sequence[str] = (), size: int | None = None,
        scheduler: str = "dpm++", steps: int = 10, guidance: float = 3.0, tile: int = 16, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        if tile < 0 or tile & (tile - 1):
            raise ValueError(
                f"tile is a power of two, not {tile}: with others an image's last bits depend on its place."
            )
        self.device = torch.device(device)
        self.steps, self.guidance, self.tile = steps, guidance, tile
        self.pipeline = load(source, self.device)
        self.pipeline.scheduler = make_scheduler(scheduler, self.pipeline.scheduler.config)
        self.size = size or self.resolution
        self.fingerprint = weights_hash(self.pipeline)
        self._sliced = False
        xl = hasattr(self.pipeline, "text_encoder_2")
        pairs = [(self.pipeline.tokenizer, self.pipeline.text_encoder)]
        if xl:
            pairs.append((self.pipeline.tokenizer_2, self.pipeline.text_encoder_2))
        self.text = TextSide(pairs, names, prompts, f"input-table:{self.fingerprint}", penultimate=xl)
        self._uncond = self.text.prompt([""])
        if xl and self.pipeline.config.force_zeros_for_empty_prompt:
            self._uncond = self._uncond.zeros()

    @property
    def book(self) -> ClassBook:
        """The class vectors in the pipeline's input token table."""
        return self.text.book

    @property
    def resolution(self) -> int:
        """Width and height at which the pipeline draws, in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Images (B, 3, H, W) uint8: vector b takes the class word's place in the prompt of class `y_B`, noise from `seed_B`."""
        images = self._tiled(
            len(y_B), lambda rows: self._draw(self.text.splice(z_BD[rows], y_B[rows]), seed_B[rows])
        )
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def latents(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """What `__call__` would decode: the denoised latents (B, F, h, w), float16, at the scale in which the U-Net works."""
        made = self._tiled(
            len(y_B),
            lambda rows: self._denoise(self.text.splice(z_BD[rows], y_B[rows]), seed_B[rows]).half(),
            self._no_latents(),
        )
        return Generated(latents_BFHW=made, y_B=y_B, row_B=torch.arange(len(y_B)))

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """The latents (B, F, h, w), float16, of images (uint8): the mean of the VAE's encoder, at the scale of `latents`."""
        vae = self.pipeline.vae

        @torch.no_grad()
        def through(rows: Tensor) -> Tensor:
            x = resized(images_B3HW[rows].float() / 127.5 - 1, self.resolution).to(self.device, vae.dtype)
            return (vae.encode(x).latent_dist.mean * vae.config.scaling_factor).half()

        return self._tiled(len(images_B3HW), through, self._no_latents())

    def pictures(self, latents_BFHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of latents, for people to look at."""
        return self._tiled(len(latents_BFHW), lambda rows: self._picture(latents_BFHW[rows].to(self.device)))

    def plain(self, prompts: Sequence[str], seed_B: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of ordinary prompts."""
        return self._tiled(
            len(prompts), lambda rows: self._draw(self.text.prompt([prompts[i] for i in rows]), seed_B[rows])
        )

    def reconstruct(self, images_B3HW: Tensor) -> Tensor:
        """The images after the VAE's encoder (its mean) and decoder, uint8: what decoding alone does to a picture."""

        @torch.no_grad()
        def through(rows: Tensor) -> Tensor:
            x = resized(images_B3HW[rows].float() / 127.5 - 1, self.resolution).to(
                self.device, self.pipeline.vae.dtype
            )
            return to_uint8(
                self.pipeline.vae.decode(self.pipeline.vae.encode(x).latent_dist.mean).sample, self.size
            )

        return self._tiled(len(images_B3HW), through)

    def _no_latents(self) -> Tensor:
        unet = self.pipeline.unet.config
        return torch.empty(0, unet.in_channels, unet.sample_size, unet.sample_size, dtype=torch.float16)

    def _tiled(self, n: int, work: Callable[[Tensor], Tensor], nothing: Tensor | None = None) -> Tensor:
        """`work` on rows 0…n-1, `tile` rows at a time, joined to `nothing`; the last tile is filled up with its first row."""
        self.tile = self.tile or self.largest_tile()
        done, start = (
            [torch.empty(0, 3, self.size, self.size, dtype=torch.uint8) if nothing is None else nothing],
            0,
        )
        while start < n:
            rows = torch.arange(start, min(start + self.tile, n))
            padded = torch.cat([rows, rows[:1].expand(self.tile - len(rows))])
            try:
                done.append(work(padded)[: len(rows)].cpu())
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._spare(error)
            else:
                start += len(rows)
        return torch.cat(done)

    def largest_tile(self) -> int:
        """The largest power of two, at most 64, of images whose drawing fits in four fifths of the memory that is free.

        Memory is measured while one and while two images are drawn; it grows evenly from there.
        """
        told, seeds = self.text.prompt([""]), torch.zeros(1, dtype=torch.long)
        used = []
        for n in (1, 2):
            try:
                with memory.Watch(self.device, every=0.005) as watch:
                    self._draw(told.expand(n), seeds.expand(n), PROBE_STEPS)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                return 1
            used.append(watch.most - watch.before)
        (one, two), free, tile = used, 0.8 * memory.free(self.device), MOST
        while tile > 1 and one + (tile - 1) * max(0, two - one) > free:
            tile //= 2
        return tile

    def _spare(self, error: RuntimeError) -> None:
        """Uses less memory from here on; DecoderError when nothing is left to spare."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.tile > 1:
            self.tile //= 2
            warnings.warn(
                f"Memory does not hold the tile: from here on {self.tile} images are drawn together, and may differ in their "
                f"last bits from those of a larger tile. --decode.tile {self.tile} draws all of them so.",
                stacklevel=2,
            )
        elif not self._sliced:
            self.pipeline.enable_attention_slicing()
            self._sliced = True
        else:
            raise DecoderError(
                f"Memory does not hold the drawing of one image of {self.resolution} pixels. Use a smaller decoder or a device "
                f"with more memory."
            ) from error

    def _draw(self, told: Conditioning, seed_B: Tensor, steps: int = 0) -> Tensor:
        return self._picture(self._denoise(told, seed_B, steps))

    @torch.no_grad()
    def _picture(self, latents_BFHW: Tensor) -> Tensor:
        vae = self.pipeline.vae
        return to_uint8(vae.decode(latents_BFHW.to(vae.dtype) / vae.config.scaling_factor).sample, self.size)

    @torch.no_grad()
    def _denoise(self, told: Conditioning, seed_B: Tensor, steps: int = 0) -> Tensor:
        pipe = self.pipeline
        shape = (pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
        noise = torch.stack([torch.randn(shape, generator=generator(int(s), "image")) for s in seed_B])
        uncond, pooled = self._uncond.expand(len(seed_B)), {}
        if told.pooled_BP is not None:
            pooled = {
                "pooled_prompt_embeds": told.pooled_BP,
                "negative_pooled_prompt_embeds": uncond.pooled_BP,
            }
        return pipe(
            prompt_embeds=told.states_BLD, negative_prompt_embeds=uncond.states_BLD, **pooled, latents=noise.to(told.states_BLD),
            generator=[generator(int(s), "steps") for s in seed_B],
            num_inference_steps=steps or self.steps, guidance_scale=self.guidance, output_type="latent",
        ).images  # fmt: skip


def make_scheduler(name: str, config: Any) -> Any:
    """The scheduler called `name` with the pipeline's noise schedule; ValueError names the nearest one."""
    import diffusers

    if name not in SCHEDULERS:
        near = difflib.get_close_matches(name, SCHEDULERS, n=1) or ["dpm++"]
        raise ValueError(
            f"No scheduler is called {name!r}. Did you mean {near[0]!r}? There are: {', '.join(SCHEDULERS)}."
        )
    # Diffusers' defaults for the two others are for pixels (clipping) and for another variant of PNDM.
    return getattr(diffusers, SCHEDULERS[name]).from_config(
        {**config, "clip_sample": False, "skip_prk_steps": True}
    )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's or the CPU's allocator gave up."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def to_uint8(x: Tensor, size: int) -> Tensor:
    """[-1, 1] as uint8 at `size` pixels, rounded."""
    return ((resized(x.float(), size).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def resized(x: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) at `size` pixels: bicubic, antialiased; as they are where they have that size."""
    return x if x.shape[-1] == size else interpolate(x, (size, size), mode="bicubic", antialias=True)


def load(source: str, device: torch.device) -> Any:
    """The pipeline at `source`, float16 on CUDA and float32 elsewhere, without safety checker, from safetensors only."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    folder = EMBEDDED if source == "embedded" else Path(source)
    known = folder.is_dir()
    if known:
        check_folder(folder)
    if not known and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        raise DecoderError(
            f"There is no decoder folder {source}. Name a diffusers folder, a hub id (owner/name) or 'embedded'."
        )
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            where = str(folder) if known else source
            kind = diffusers.DiffusionPipeline.load_config(where)["_class_name"]
            if kind not in PARTS:
                raise DecoderError(f"{source} holds a {kind}, {NEEDED}.")
            unsafe = (
                {"safety_checker": None, "requires_safety_checker": False}
                if kind == "StableDiffusionPipeline"
                else {}
            )
            pipeline = getattr(diffusers, kind).from_pretrained(
                where, dtype=dtype, use_safetensors=True, **unsafe
            )
    except DecoderError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DecoderError(f"The decoder {source} cannot be loaded: {error}") from error
    for encoder in (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if encoder is not None and not isinstance(encoder.get_input_embeddings(), torch.nn.Embedding):
            raise DecoderError(
                f"{source}: its {type(encoder).__name__} has no token table, in which vectors could be sampled."
            )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    if hasattr(pipeline, "text_encoder_2") and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # SDXL's VAE overflows in half precision
    return pipeline


def check_folder(folder: Path) -> None:
    """Raises DecoderError unless every part of a `StableDiffusionPipeline` is there; diffusers would invent a missing tokenizer."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise DecoderError(f"{folder} is not a diffusers pipeline: it has no model_index.json.")
    kind = str(read_json(index).get("_class_name"))
    for part in PARTS.get(kind, ()):
        if not any((folder / part).glob("*.json")):
            raise DecoderError(f"{folder} cannot be loaded: its part {part!r} is missing.")
    weights = [part for part in PARTS.get(kind, ()) if part.startswith(("text_encoder", "unet", "vae"))]
    if pickled := [part for part in weights if not any((folder / part).glob("*.safetensors"))]:
        raise DecoderError(
            f"{folder}: the weights of {listed(pickled)} are missing or pickled, and a pickle can run anything. Load the pipeline "
            f"where you trust it and save_pretrained(folder, safe_serialization=True)."
        )


def weights_hash(pipeline: Any) -> str:
    """A hash of all weights and of the tokenizer's vocabulary: equal pipelines, equal hash."""
    digest = hashlib.blake2b(digest_size=8)
    second = [pipeline.text_encoder_2] if hasattr(pipeline, "text_encoder_2") else []
    for part in (pipeline.text_encoder, *second, pipeline.unet, pipeline.vae):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for token, number in sorted(pipeline.tokenizer.get_vocab().items()):
        digest.update(f"{token}={number};".encode())
    return digest.hexdigest()
