"""Decodes vectors with any diffusers pipeline of the Stable Diffusion family: the embedded one, SD 1.x, 2.x,
SDXL.

Each image depends on its own vector, class and seed. All networks run on batches of one fixed size (`tile`,
padded), because the last bits of a matrix product depend on its shape: so an image has the same bytes alone
or among thousands. On processors with matrix units for bfloat16 the networks multiply in it, which is a part
of the fingerprint, as the engine is.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor

from ...core import parallel
from ...core.device import multiplies_bf16
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import ClassBook, Generated, Json
from ...core.words import Words
from ...models.inference import weights_hash
from ..conditioning import Conditioning, TextSide
from ..errors import DecoderError
from ..names import known_to, things
from ..pipeline import load_autoencoder, load_pipeline
from ..schedulers import make_scheduler
from ..text import Span
from ._autoencoding import Autoencoding, finite
from ._denoising import Denoising, check_guidance
from ._engines import make_engine

__all__ = ["StableDecoder", "digest", "noise", "pipeline_hash"]

PROBE_STEPS = 2
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_THINGS = 100
"""a vocabulary with fewer names of things is a domain's own"""


@register("decoders", "stable")
class StableDecoder(Denoising, Autoencoding):
    """A Stable Diffusion pipeline with the classes' prompts prepared; `book` holds the class vectors.

    `source` is a diffusers folder or hub id ("embedded" is the one in this package); only safetensors are
    read. `prompts` hold the class names at the characters `spans` (see `text.name_spans`, which finds them).
    `steps` of `scheduler` and `guidance` are per image (see `Denoising`). Images are drawn `resolution`
    pixels wide (0: what the pipeline was trained for) and leave it `size` pixels wide (bicubic, antialiased).

    `vae` is the folder of an autoencoder that takes the place of the pipeline's, also for reconstructions.
    `precision` is of the networks: auto is fp16 on CUDA, bf16 (matrix products alone) on processors with
    units for it, and fp32 elsewhere. `engine` runs them (see `_engines`). `tile` images are drawn together
    (see `Tiled`); where memory does not hold one, attention is computed in slices.

    Raises DecoderError when a part is missing or an option out of range, PromptError when a name and its
    prompt do not fit. Its methods raise DecoderError when memory holds no single image, and NotFiniteError in
    place of black images.
    """

    _own_options: tuple[object, ...] = ()  # a subclass's name and options, on which its images depend, too

    def __init__(
        self, source: str = "embedded", *, names: Sequence[str], prompts: Sequence[str] = (),
        spans: Sequence[Span] = (), size: int | None = None, scheduler: str = "dpm++", steps: int = 8,
        guidance: float = 3.0, guided_from: float = 0.0, guided_until: float = 1.0, resolution: int = 0,
        vae: str = "", precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
        engine: Literal["eager", "channels_last", "compiled", "openvino"] = "eager", tile: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        dtype, multiplies_in = _types(precision, self.device)
        self.pipeline = load_pipeline(source, self.device, dtype)
        self._schedule = self.pipeline.scheduler.config
        self._weights, self._resolution = pipeline_hash(self.pipeline), resolution
        _check_resolution(resolution, self.pipeline.vae_scale_factor)
        if vae:
            self.pipeline.vae = load_autoencoder(vae, self.pipeline)
        self._engine = make_engine(engine, self.pipeline, self.device, multiplies_in)
        self._rendering = _changed(
            vae=vae and weights_hash(self.pipeline.vae.state_dict(), type(self.pipeline.vae).__name__),
            resolution=resolution,
            engine=engine if engine != "eager" else "",
            precision=precision if precision != "auto" else "",
        )
        self.size = size or self.resolution
        self._sliced, self._schedulers = False, threading.local()
        self.at_once = parallel.CORES if self._engine.side_by_side else 1
        self.guided_from, self.guided_until = guided_from, guided_until
        self._choose(scheduler, steps, guidance, tile)
        encoders = _encoders(self.pipeline)
        xl, space = len(encoders) > 1, f"input-table:{self._weights}"
        self.text = TextSide(encoders, names, prompts, space, xl, spans)
        self.book: ClassBook = self.text.book
        self._listed = cache(partial(_listed, source, self.text))
        self._uncond = self.text.prompt([""])
        if xl and self.pipeline.config.force_zeros_for_empty_prompt:
            self._uncond = self._uncond.zeros()

    def _choose(self, scheduler: str, steps: int, guidance: float, tile: int) -> None:
        _check_tile(tile)
        check_guidance(guidance, self.guided_from, self.guided_until)
        self.steps, self.guidance, self.tile, self._scheduler = steps, guidance, tile, scheduler
        self.pipeline.scheduler = make_scheduler(scheduler, self._schedule, steps)

    @property
    def fingerprint(self) -> str:
        """A hash of the weights, the vocabulary, and the options on which images depend."""
        options = (self._scheduler, self.steps, float(self.guidance), self.size)
        bf16 = ["bf16"] * (self._engine.multiplies_in is torch.bfloat16)
        interval = [(self.guided_from, self.guided_until)] * ((self.guided_from, self.guided_until) != (0, 1))
        return digest(self._weights, *options, *bf16, *self._own_options, *interval, *self._rendering)

    @property
    def rendering(self) -> Json:
        """How images become latents and latents images, where that is not the usual way: a hash of the
        autoencoder, the resolution, the engine and the precision. Reconstructions depend on it, too.
        """
        return dict(self._rendering)

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
        return self._resolution or int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Images (B, 3, H, W) uint8: vector b takes the class name's place in the prompt of class `y_B`,
        noise from `seed_B`.
        """
        return self._images(self._imagine, z_BD, y_B, seed_B)

    def _images(self, imagine: Callable[..., Tensor], z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        def draw(rows: Tensor) -> Tensor:
            return self._picture(imagine(z_BD[rows], y_B[rows], seed_B[rows], rows), rows)

        images = self.tiled(len(y_B), draw, self._no_images)
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def latents(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """What `__call__` would decode: latents (B, F, h, w), float16, at the U-Net's own scale."""

        def denoise(rows: Tensor) -> Tensor:
            latents = self._imagine(z_BD[rows], y_B[rows], seed_B[rows], rows)
            return finite(latents.half(), "U-Net", rows)

        latents = self.tiled(len(y_B), denoise, self._no_latents)
        return Generated(latents_BFHW=latents, y_B=y_B, row_B=torch.arange(len(y_B)))

    def plain(self, prompts: Sequence[str], seed_B: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of prompts, as they are."""

        def draw(rows: Tensor) -> Tensor:
            return self._draw(self.text.prompt([prompts[i] for i in rows]), seed_B[rows], rows)

        return self.tiled(len(prompts), draw, self._no_images)

    def words(self, names: Sequence[str] = ()) -> Words:
        """The words of these names; without names, of all that the decoder lists as learnt. Where it lists
        none, of the things that its vocabulary names: of all of it where that is fewer than 100, a domain's
        own.

        Raises PromptError for a name that the tokenizer does not know.
        """
        if names:
            return Words(names=tuple(names), z_VD=self.text.vectors(names))
        return self._listed()

    def neighbours(self, z_MD: Tensor, n: int = 3) -> list[list[str]]:
        """The n of all `words` whose vectors have the largest cosine to each vector, nearest first."""
        return self._listed().nearest(z_MD, n)

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

    def _imagine(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        """The denoised latents (B, F, h, w) of vectors."""
        return self._denoise(self.text.splice(z_BD, y_B), seed_B, rows)

    def _draw(self, prompt: Conditioning, seed_B: Tensor, rows: Tensor, steps: int = 0) -> Tensor:
        return self._picture(self._denoise(prompt, seed_B, rows, steps), rows)

    @torch.no_grad()
    def _denoise(self, prompt: Conditioning, seed_B: Tensor, rows: Tensor, steps: int = 0) -> Tensor:
        states_BLD = finite(prompt.states_BLD, "text encoder", rows)
        gaussian = noise(seed_B, self._no_latents).to(states_BLD)
        latents = self._denoised(replace(prompt, states_BLD=states_BLD), gaussian, seed_B, steps)
        return finite(latents, "U-Net", rows)


def _listed(source: str, text: TextSide) -> Words:
    """The names that a decoder lists as learnt, or else the things that its vocabulary names."""
    if names := tuple(sorted(known_to(source) or ())):
        return Words(names=names, z_VD=text.vectors(names))
    vocabulary, z_VD = text.words()
    pictured = things()
    rows = [row for row, word in enumerate(vocabulary) if word in pictured]
    if len(rows) < MIN_THINGS:
        rows = list(range(len(vocabulary)))
    return Words(names=tuple(vocabulary[row] for row in rows), z_VD=z_VD[rows])


def _encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """A pipeline's tokenizers, each with its text encoder."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    second = hasattr(pipeline, "text_encoder_2")
    return [*pairs, (pipeline.tokenizer_2, pipeline.text_encoder_2)] if second else pairs


def _types(precision: str, device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    """The type of the networks, and that of their matrix products where it is another one."""
    if precision not in ("auto", *PRECISIONS):
        raise DecoderError(f"precision is auto or one of {', '.join(PRECISIONS)}, not {precision!r}.")
    if device.type != "cpu":
        auto = torch.float16 if device.type == "cuda" else torch.float32
        return {"auto": auto, **PRECISIONS}[precision], None
    if precision == "fp16":
        raise DecoderError("A CPU draws in fp32 or bf16, not in fp16.")
    bf16 = precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
    return torch.float32, torch.bfloat16 if bf16 else None


def _changed(**options: object) -> tuple[tuple[str, object], ...]:
    """The options that are not the usual ones, which are empty."""
    return tuple((key, value) for key, value in options.items() if value)


def _check_tile(tile: int) -> None:
    if tile < 0 or tile & (tile - 1):
        raise DecoderError(
            f"tile is a power of two, not {tile}: with others an image's last bits depend on its place."
        )


def _check_resolution(resolution: int, factor: int) -> None:
    if resolution < 0 or resolution % factor:
        near = max(factor, round(resolution / factor) * factor)
        raise DecoderError(
            f"This decoder draws pictures whose width is a multiple of {factor} pixels, not of {resolution}. "
            f"Near it is {near}: --decode.options resolution={near}"
        )


def noise(seed_B: Tensor, latents_BFHW: Tensor, what: str = "image") -> Tensor:
    """Standard normal noise (B, F, h, w) of the latents' shape, each row of its seed alone."""
    shape = latents_BFHW.shape[1:]
    return torch.stack([torch.randn(shape, generator=generator(int(s), what)) for s in seed_B])


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
