"""Decodes vectors with any diffusers pipeline of the Stable Diffusion family: the embedded one, SD 1.x, 2.x,
SDXL.

Each image depends on its own vector, class and seed. All networks run on batches of one fixed size (`tile`,
padded), because the last bits of a matrix product depend on its shape: so an image has the same bytes alone
or among thousands. On processors with matrix units for bfloat16 the networks multiply in it, which is a part
of the fingerprint.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...core.device import multiplies_bf16
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import ClassBook, Generated
from ...core.words import Words
from ...models.inference import weights_hash
from ..conditioning import Conditioning, TextSide
from ..errors import DecoderError, NotFiniteError
from ..names import known_to, things
from ..pipeline import load_pipeline
from ..schedulers import make_scheduler
from ..text import Span
from ._steps import Watched
from ._tiles import Tiled

__all__ = ["StableDecoder", "digest", "finite", "noise", "pipeline_hash", "resized", "to_uint8"]

PROBE_STEPS = 2
MIN_THINGS = 100
"""a vocabulary with fewer names of things is a domain's own"""


@register("decoders", "stable")
class StableDecoder(Watched, Tiled):
    """A Stable Diffusion pipeline with the classes' prompts prepared; `book` holds the class vectors.

    `source` is a diffusers folder or hub id ("embedded" is the one in this package); only safetensors are
    read. `prompts` hold the class names at the characters `spans` (see `text.name_spans`, which finds them).
    `steps` of `scheduler` and `guidance` (classifier-free) are per image. Images leave it `size` pixels wide
    (bicubic, antialiased), whatever the pipeline's own resolution.

    `tile` images are drawn together (see `Tiled`); where memory does not hold one, attention is computed in
    slices.

    Raises DecoderError when a part is missing or an option out of range, PromptError when a name and its
    prompt do not fit. Its methods raise DecoderError when memory holds no single image, and NotFiniteError in
    place of black images.
    """

    _own_options: tuple[object, ...] = ()  # a subclass's name and options, on which its images depend, too

    def __init__(
        self, source: str = "embedded", *, names: Sequence[str], prompts: Sequence[str] = (),
        spans: Sequence[Span] = (), size: int | None = None, scheduler: str = "dpm++", steps: int = 10,
        guidance: float = 3.0, tile: int = 16, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        self.pipeline = load_pipeline(source, self.device)
        self._source, self._schedule = source, self.pipeline.scheduler.config
        self.size = size or self.resolution
        self._weights = pipeline_hash(self.pipeline)
        self._bf16 = self.device.type == "cpu" and multiplies_bf16(self.device)
        self._sliced = False
        self._choose(scheduler, steps, guidance, tile)
        encoders = _encoders(self.pipeline)
        xl, space = len(encoders) > 1, f"input-table:{self._weights}"
        self.text = TextSide(encoders, names, prompts, space, xl, spans)
        self.book: ClassBook = self.text.book
        self._uncond = self.text.prompt([""])
        if xl and self.pipeline.config.force_zeros_for_empty_prompt:
            self._uncond = self._uncond.zeros()

    def _choose(self, scheduler: str, steps: int, guidance: float, tile: int) -> None:
        _check_options(guidance, tile)
        self.steps, self.guidance, self.tile, self._scheduler = steps, guidance, tile, scheduler
        self.pipeline.scheduler = make_scheduler(scheduler, self._schedule, steps)

    @property
    def fingerprint(self) -> str:
        """A hash of the weights, the vocabulary, and the options on which images depend."""
        options = (self._scheduler, self.steps, float(self.guidance), self.size)
        return digest(self._weights, *options, *["bf16"] * self._bf16, *self._own_options)

    def changed(self, *, steps: int, guidance: float, tile: int) -> StableDecoder:
        """A decoder of the same networks, which are shared, with other options.

        Raises DecoderError for one that is out of range.
        """
        other = copy.copy(self)
        other.pipeline = copy.copy(self.pipeline)
        other._choose(self._scheduler, steps, guidance, tile)
        return other

    @property
    def resolution(self) -> int:
        """Width and height at which the pipeline draws, in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Images (B, 3, H, W) uint8: vector b takes the class name's place in the prompt of class `y_B`,
        noise from `seed_B`.
        """

        def draw(rows: Tensor) -> Tensor:
            return self._picture(self._imagine(z_BD[rows], y_B[rows], seed_B[rows], rows), rows)

        images = self.tiled(len(y_B), draw, self._no_images)
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def latents(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """What `__call__` would decode: latents (B, F, h, w), float16, at the U-Net's own scale."""

        def denoise(rows: Tensor) -> Tensor:
            latents = self._imagine(z_BD[rows], y_B[rows], seed_B[rows], rows)
            return finite(latents.half(), "U-Net", rows)

        latents = self.tiled(len(y_B), denoise, self._no_latents)
        return Generated(latents_BFHW=latents, y_B=y_B, row_B=torch.arange(len(y_B)))

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """The latents (B, F, h, w), float16, of images (uint8): the mean of the VAE's encoder, at the scale
        of `latents`.
        """

        def encode(rows: Tensor) -> Tensor:
            latents = self._encoded(images_B3HW[rows], rows) * self.pipeline.vae.config.scaling_factor
            return finite(latents.half(), "VAE", rows)

        return self.tiled(len(images_B3HW), encode, self._no_latents)

    def pictures(self, latents_BFHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of latents, for people to look at."""

        return self.tiled(
            len(latents_BFHW), lambda rows: self._picture(latents_BFHW[rows], rows), self._no_images
        )

    def plain(self, prompts: Sequence[str], seed_B: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of prompts, as they are."""

        def draw(rows: Tensor) -> Tensor:
            return self._draw(self.text.prompt([prompts[i] for i in rows]), seed_B[rows], rows)

        return self.tiled(len(prompts), draw, self._no_images)

    def reconstruct(self, images_B3HW: Tensor) -> Tensor:
        """The images after the VAE's encoder (its mean) and decoder, uint8: what decoding alone does to a
        picture.
        """

        def there_and_back(rows: Tensor) -> Tensor:
            return self._decoded(self._encoded(images_B3HW[rows], rows), rows)

        return self.tiled(len(images_B3HW), there_and_back, self._no_images)

    def words(self, names: Sequence[str] = ()) -> Words:
        """The words of these names; without names, of all that the decoder lists as learnt. Where it lists
        none, of the things that its vocabulary names: of all of it where that is fewer than 100, a domain's
        own.

        Raises PromptError for a name that the tokenizer does not know.
        """
        if names := tuple(names or sorted(known_to(self._source) or ())):
            return Words(names=names, z_VD=self.text.vectors(names))
        vocabulary, z_VD = self.text.words()
        pictured = things()
        rows = [row for row, word in enumerate(vocabulary) if word in pictured]
        if len(rows) < MIN_THINGS:
            rows = list(range(len(vocabulary)))
        return Words(names=tuple(vocabulary[row] for row in rows), z_VD=z_VD[rows])

    def neighbours(self, z_MD: Tensor, n: int = 3) -> list[list[str]]:
        """The n words whose vectors have the largest cosine to each vector, nearest first."""
        return self.text.neighbours(z_MD, n)

    def probe(self, n: int) -> None:
        """Two steps of the drawing of n images."""
        rows = torch.arange(n)
        self._draw(self.text.prompt([""]).expand(n), torch.zeros_like(rows), rows, PROBE_STEPS)

    def save_memory(self) -> bool:
        """Computes attention in slices from here on, once."""
        before, self._sliced = self._sliced, True
        if not before:
            self.pipeline.enable_attention_slicing()
        return not before

    @property
    def _no_images(self) -> Tensor:
        return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)

    @property
    def _no_latents(self) -> Tensor:
        unet = self.pipeline.unet.config
        return torch.empty(0, unet.in_channels, unet.sample_size, unet.sample_size, dtype=torch.float16)

    def _imagine(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        """The denoised latents (B, F, h, w) of vectors."""
        return self._denoise(self.text.splice(z_BD, y_B), seed_B, rows)

    def _draw(self, prompt: Conditioning, seed_B: Tensor, rows: Tensor, steps: int = 0) -> Tensor:
        return self._picture(self._denoise(prompt, seed_B, rows, steps), rows)

    def _picture(self, latents_BFHW: Tensor, rows: Tensor) -> Tensor:
        vae = self.pipeline.vae
        return self._decoded(latents_BFHW.to(self.device, vae.dtype) / vae.config.scaling_factor, rows)

    @torch.no_grad()
    def _encoded(self, images_B3HW: Tensor, rows: Tensor) -> Tensor:
        vae = self.pipeline.vae
        x = resized(images_B3HW.float() / 127.5 - 1, self.resolution).to(self.device, vae.dtype)
        with self._multiplying():
            mean = vae.encode(x).latent_dist.mean
        return finite(mean.to(vae.dtype), "VAE", rows)

    @torch.no_grad()
    def _decoded(self, latents_BFHW: Tensor, rows: Tensor) -> Tensor:
        with self._multiplying():
            sample = self.pipeline.vae.decode(latents_BFHW).sample
        return to_uint8(finite(sample, "VAE", rows), self.size)

    @torch.no_grad()
    def _denoise(self, prompt: Conditioning, seed_B: Tensor, rows: Tensor, steps: int = 0) -> Tensor:
        states_BLD = finite(prompt.states_BLD, "text encoder", rows)
        with self._multiplying():
            latents = self.pipeline(
                **_embeddings(replace(prompt, states_BLD=states_BLD), self._uncond.expand(len(seed_B))),
                latents=noise(seed_B, self._no_latents).to(states_BLD),
                generator=[generator(int(s), "steps") for s in seed_B],
                num_inference_steps=steps or self.steps,
                guidance_scale=self.guidance,
                output_type="latent",
                callback_on_step_end=self._after_step,
            ).images
        return finite(latents, "U-Net", rows)

    def _multiplying(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext()


def _encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """A pipeline's tokenizers, each with its text encoder."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    second = hasattr(pipeline, "text_encoder_2")
    return [*pairs, (pipeline.tokenizer_2, pipeline.text_encoder_2)] if second else pairs


def _embeddings(prompt: Conditioning, uncond: Conditioning) -> dict[str, Tensor | None]:
    """What a pipeline of diffusers is called with, for prompts and for none."""
    embeddings: dict[str, Tensor | None] = {
        "prompt_embeds": prompt.states_BLD,
        "negative_prompt_embeds": uncond.states_BLD,
    }
    if prompt.pooled_BP is not None:
        embeddings["pooled_prompt_embeds"] = prompt.pooled_BP
        embeddings["negative_pooled_prompt_embeds"] = uncond.pooled_BP
    return embeddings


def _check_options(guidance: float, tile: int) -> None:
    if tile < 0 or tile & (tile - 1):
        raise DecoderError(
            f"tile is a power of two, not {tile}: with others an image's last bits depend on its place."
        )
    if not 0 <= guidance < math.inf:
        raise DecoderError(f"guidance is at least 0, not {guidance}.")


def noise(seed_B: Tensor, latents_BFHW: Tensor, what: str = "image") -> Tensor:
    """Standard normal noise (B, F, h, w) of the latents' shape, each row of its seed alone."""
    shape = latents_BFHW.shape[1:]
    return torch.stack([torch.randn(shape, generator=generator(int(s), what)) for s in seed_B])


def finite(x: Tensor, part: str, rows: Tensor) -> Tensor:
    """x (B, …) itself; NotFiniteError names the first of its `rows` (B,) that holds NaN or infinity."""
    wrong_B = ~x.isfinite().flatten(1).all(1).cpu()
    if wrong_B.any():
        raise NotFiniteError(int(rows[wrong_B][0]), part, x.dtype)
    return x


def to_uint8(x: Tensor, size: int) -> Tensor:
    """[-1, 1] as uint8 at `size` pixels, rounded."""
    return ((resized(x.float(), size).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def resized(x: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) at `size` pixels: bicubic, antialiased; as they are where they have that size."""
    return x if x.shape[-1] == size else interpolate(x, (size, size), mode="bicubic", antialias=True)


def pipeline_hash(pipeline: Any) -> str:
    """A hash of all weights and of the tokenizer's vocabulary: equal pipelines, equal hash."""
    names = ("text_encoder", "text_encoder_2", "unet", "vae")
    networks = [getattr(pipeline, name) for name in names if getattr(pipeline, name, None) is not None]
    return digest(
        *(weights_hash(network.state_dict()) for network in networks),
        *sorted(pipeline.tokenizer.get_vocab().items()),
    )


def digest(*items: object) -> str:
    """A short hash of what a decoder is made of."""
    return hashlib.blake2b(repr(items).encode(), digest_size=8).hexdigest()
