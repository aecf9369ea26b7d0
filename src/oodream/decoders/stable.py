"""Decodes vectors with any diffusers `StableDiffusionPipeline`: the embedded one, SD 1.x, SD 2.x.

Each image depends on its own vector, class and seed. All networks run on batches of one fixed size (`tile`, padded), because the
last bits of a matrix product depend on its shape: so an image has the same bytes alone or among thousands.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..registry import register
from ..seeding import generator
from ..store import read_json
from ..text import class_book, scaled, splice, spliced_ids
from ..types import ClassBook, Generated

EMBEDDED = Path(__file__).parent.parent / "assets" / "decoder"


class DecoderError(ValueError):
    """A decoder cannot be loaded or used; the message says which part and what to do."""


@register("decoders", "stable")
class StableDecoder:
    """A Stable Diffusion pipeline with the classes' prompts prepared; `book` holds the class vectors.

    Images leave it `size` pixels wide (bicubic, antialiased), whatever the pipeline's own resolution.

    `source` is a diffusers folder or hub id ("embedded" is the one in this package); only safetensors are read. `steps` of
    DPM-Solver++ and `guidance` (classifier-free) are per image. Raises DecoderError when a part is missing.
    """

    def __init__(
        self, source: str = "embedded", *, names: Sequence[str], prompts: Sequence[str] = (),
        size: int | None = None, steps: int = 15, guidance: float = 3.0, tile: int = 16, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        self.steps, self.guidance, self.tile = steps, guidance, tile
        self.pipeline = load(source, self.device)
        self.size = size or self.resolution
        self.fingerprint = weights_hash(self.pipeline)
        self.book: ClassBook = class_book(
            self.pipeline.tokenizer, self.pipeline.text_encoder, names, prompts, space=f"input-table:{self.fingerprint}"
        )
        ids, self._position_C = (x.to(self.device) for x in spliced_ids(self.pipeline.tokenizer, self.book))
        self._ids_CL = ids
        self._uncond = self._encode_text([""])

    @property
    def resolution(self) -> int:
        """Width and height at which the pipeline draws, in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def _encode_text(self, prompts: Sequence[str]) -> Tensor:
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            return self.pipeline.text_encoder(ids.to(self.device)).last_hidden_state

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        """Images (B, 3, H, W) uint8: vector b takes the class word's place in the prompt of class `y_B`, noise from `seed_B`."""
        v_BD = scaled(z_BD, self.book.tokens_CD[y_B]).to(self.device)

        def states(rows: Tensor) -> Tensor:
            return splice(self.pipeline.text_encoder, self._ids_CL[y_B[rows]], self._position_C[y_B[rows]], v_BD[rows])

        images = self._tiled(len(y_B), lambda rows: self._denoise(states(rows), seed_B[rows]))
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def plain(self, prompts: Sequence[str], seed_B: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of ordinary prompts."""
        return self._tiled(
            len(prompts), lambda rows: self._denoise(self._encode_text([prompts[i] for i in rows.tolist()]), seed_B[rows])
        )

    def reconstruct(self, images_B3HW: Tensor) -> Tensor:
        """The images after the VAE's encoder (its mean) and decoder, uint8: what decoding alone does to a picture."""

        @torch.no_grad()
        def through(rows: Tensor) -> Tensor:
            x = resized(images_B3HW[rows].float() / 127.5 - 1, self.resolution).to(self.device, self.pipeline.vae.dtype)
            return to_uint8(self.pipeline.vae.decode(self.pipeline.vae.encode(x).latent_dist.mean).sample, self.size)

        return self._tiled(len(images_B3HW), through)

    def _tiled(self, n: int, work: Callable[[Tensor], Tensor]) -> Tensor:
        """`work` on rows 0…n-1, `tile` rows at a time; the last tile is filled up with its first row."""
        done = [torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)]
        for start in range(0, n, self.tile):
            rows = torch.arange(start, min(start + self.tile, n))
            padded = torch.cat([rows, rows[:1].expand(self.tile - len(rows))])
            done.append(work(padded)[: len(rows)].cpu())
        return torch.cat(done)

    @torch.no_grad()
    def _denoise(self, states_BLD: Tensor, seed_B: Tensor) -> Tensor:
        pipe = self.pipeline
        size = pipe.unet.config.sample_size
        shape = (pipe.unet.config.in_channels, size, size)
        noise = torch.stack([torch.randn(shape, generator=generator(int(s), "image")) for s in seed_B])
        latents = pipe(
            prompt_embeds=states_BLD, negative_prompt_embeds=self._uncond.expand_as(states_BLD), latents=noise.to(states_BLD),
            num_inference_steps=self.steps, guidance_scale=self.guidance, output_type="latent",
        ).images  # fmt: skip
        return to_uint8(pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample, self.size)


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
        raise DecoderError(f"There is no decoder folder {source}. Name a diffusers folder, a hub id (owner/name) or 'embedded'.")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
                str(folder) if known else source,
                dtype=dtype,
                use_safetensors=True,
                safety_checker=None,
                requires_safety_checker=False,
            )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DecoderError(f"The decoder {source} cannot be loaded: {error}") from error
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def check_folder(folder: Path) -> None:
    """Raises DecoderError unless every part of a `StableDiffusionPipeline` is there; diffusers would invent a missing tokenizer."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise DecoderError(f"{folder} is not a diffusers pipeline: it has no model_index.json.")
    parts = read_json(index)
    if (kind := parts.get("_class_name")) != "StableDiffusionPipeline":
        raise DecoderError(f"{folder} holds a {kind}; a StableDiffusionPipeline (SD 1.x or 2.x) is needed.")
    for part in ("tokenizer", "text_encoder", "unet", "vae", "scheduler"):
        if not any((folder / part).glob("*.json")):
            raise DecoderError(f"{folder} cannot be loaded: its part {part!r} is missing.")


def weights_hash(pipeline: Any) -> str:
    """A hash of all weights and of the tokenizer's vocabulary: equal pipelines, equal hash."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for token, number in sorted(pipeline.tokenizer.get_vocab().items()):
        digest.update(f"{token}={number};".encode())
    return digest.hexdigest()
