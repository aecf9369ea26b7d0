"""The verb `decode`: sampled vectors become images or latents, in batches; and the decoder that a
configuration names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import DecodeConfig
from ..core.faults import blamed, require
from ..core.progress import counter
from ..core.registry import get, make
from ..core.types import ClassBook, Decoder, Features, Generated, Json, SampledVectors
from .errors import NotFiniteError
from .known import Known, KnownDecoder, is_guided
from .text import Span, check_prompt, name_spans

__all__ = [
    "VAE",
    "check_space",
    "decode",
    "decoder_options",
    "make_decoder",
    "provenance",
    "rendering",
    "tile_size",
]


VAE = "vae"
"""The option of decoders that is the place of an autoencoder."""


def make_decoder(
    config: DecodeConfig,
    names: Sequence[str],
    prompts: Sequence[str],
    size: int,
    device: str | torch.device,
    spans: Sequence[Span] = (),
    known: Known | None = None,
) -> Decoder:
    """The decoder that `config` names, with a prompt for each of `names`; its images are `size` pixels wide.

    `prompts` are made with the template `config.prompt` and hold the names at the characters `spans`; without
    these `name_spans` finds them. A decoder is called with these and the keywords of `decoder_options`.
    `known` is for one that looks at known images or their classifier (see `KnownDecoder`).

    Raises ConfigError for a template that `check_prompt` refuses, PromptError for a name that is not in its
    prompt, ValueError where `known` is needed and not given, or where `guided` is not that of the decoder's
    class, and what the decoder raises.
    """
    check_prompt(config.prompt)
    decoder: Decoder = make(
        "decoders",
        config.decoder,
        names=names,
        prompts=prompts,
        spans=spans or name_spans(names, prompts, config.prompt),
        size=size,
        device=device,
        **decoder_options(config),
    )
    if not isinstance(decoder, KnownDecoder):
        return decoder
    if bool(decoder.guided) != is_guided(get("decoders", config.decoder)):
        raise ValueError(
            f"The decoder {config.decoder!r} has a `guided` of its own: it belongs to its class, or to the "
            "function that makes it, for runs are planned before a decoder is made."
        )
    if known is None:
        raise ValueError(f"The decoder {config.decoder!r} looks at known images: pass known=Known(…).")
    return decoder.with_known(known)


def decoder_options(config: DecodeConfig) -> dict[str, Any]:
    """What a decoder takes of the configuration: source, scheduler, steps, guidance, tile, and its own
    options.
    """
    keys = ("source", "scheduler", "steps", "guidance", "tile")
    return {key: getattr(config, key) for key in keys} | config.options


def decode(
    vectors: SampledVectors,
    decoder: Decoder,
    rows: Tensor | None = None,
    output: Literal["images", "latents"] = "images",
    what: str = "decode",
) -> Iterator[Generated]:
    """The images, or the latents, of `rows` (all if None), in batches of as many as the decoder draws
    at a time; `row_B` are rows of `vectors`.

    `what` stands beside the progress bar. Raises ValueError for vectors of another space than the decoder's,
    NotFiniteError, which names the row, where the decoder gives NaN or infinity, and ValueError, with its
    name, where it gives anything else that is no image or latent for every vector.
    """
    check_space(vectors, decoder)
    draw = decoder if output == "images" else decoder.latents
    rows = torch.arange(len(vectors)) if rows is None else rows
    together = tile_size(decoder) * getattr(decoder, "at_once", 1)
    with counter(total=len(rows), what=what, unit="image") as line:
        for part in rows.split(together):
            try:
                with blamed(type(decoder).__name__, decoder):
                    batch = draw(vectors.z_MD[part], vectors.y_M[part], vectors.seed_M[part])
                    _check_generated(batch, len(part), output)
            except NotFiniteError as error:
                raise NotFiniteError(int(part[error.index]), error.part, error.dtype, "Row") from error
            yield replace(batch, row_B=part)
            line.update(len(part))


def _check_generated(batch: Generated, n: int, output: str) -> None:
    """Raises BrokenRule unless there is an image, or a finite latent, for each of `n` vectors."""
    require(isinstance(batch, Generated), f"It returns Generated(…), not {type(batch).__name__}.")
    if output == "images":
        x, called, dtype = batch.images_B3HW, "images_B3HW", torch.uint8
    else:
        x, called, dtype = batch.latents_BFHW, "latents_BFHW", torch.float16
    require(isinstance(x, Tensor), f"It gave no {called}, but", x)
    assert x is not None
    right = x.ndim == 4 and (output == "latents" or x.shape[1] == 3) and x.dtype == dtype
    require(right, f"Its {called} are {dtype} of 4 dimensions, not {x.dtype} of shape {tuple(x.shape)}.")
    require(len(x) == n, f"It gave {len(x)} {output} for {n} vectors.")
    require(bool(x.isfinite().all()), f"Its {called} hold NaN or infinity.")


def tile_size(decoder: Decoder) -> int:
    """How many images the decoder draws together."""
    return decoder.tile or decoder.largest_tile()


def rendering(decoder: Decoder) -> Json:
    """How a decoder's images become latents and latents images, where it says that this is not the usual way
    (see `StableDecoder.rendering`): for provenance, and as an input of stages.
    """
    way = getattr(decoder, "rendering", None)
    return {"rendering": way} if way else {}


def check_space(vectors: SampledVectors, decoder: Decoder) -> None:
    """Raises ValueError for vectors of another space than the decoder's."""
    if vectors.space != decoder.book.space:
        raise ValueError(
            f"The vectors are of space {vectors.space!r} and the decoder of {decoder.book.space!r}. "
            f"Sample again."
        )


def provenance(
    vectors: SampledVectors,
    features: Features,
    book: ClassBook,
    files: Sequence[str],
    fingerprint: str,
    m: int,
) -> Json:
    """What a person may ask of the image of row m.

    Its class, prompt, anchor image (of `files`, the ID training images'), distance to the class's k-th
    nearest feature, cosine to T(y), seed, and the decoder's `fingerprint`.
    """
    y, anchor = int(vectors.y_M[m]), int(vectors.anchor_M[m])
    cosine = torch.cosine_similarity(vectors.z_MD[m], book.tokens_CD[y], dim=0)
    return {
        "row": m,
        "kind": vectors.kind,
        "class": book.names[y],
        "prompt": book.prompts[y],
        "anchor": files[int(features.index_N[anchor])],
        "anchor_index": int(features.index_N[anchor]),
        "knn_distance": round(float(vectors.knn_M[m]), 6),
        "cosine_to_class": round(float(cosine), 6),
        "seed": int(vectors.seed_M[m]),
        "pipeline": fingerprint,
    }
