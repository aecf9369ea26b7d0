"""The rules that every decoder keeps, as a check for authors of new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..config import DecodeConfig
from ..core.faults import require
from ..core.seeding import generator
from ..core.types import Decoder
from ..data.images import from_array
from ..synthesis.decode import decoder_options, make_decoder
from ..synthesis.known import Known, KnownDecoder
from ..synthesis.text import name_spans
from ._rules import rules_of, run_rules, untouched
from .toy import Toy

__all__ = ["check_decoder"]

NAMES, SIZE, IMAGES = ("circle", "square", "star"), 24, 5
KNOWN = 120  # images that a decoder may look at
Make = Callable[..., Decoder]


def check_decoder(
    decoder: str | Callable[..., Decoder], changed: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Checks that a decoder keeps the rules; AssertionError says which one it breaks.

    `decoder` is a registered name, `package.module:Class` or the class itself. `options` are those of the
    section `decode`, such as `source`; few `steps` make the check fast. `changed` are options that make other
    images (by default one more step). The rules:

    - `book` holds the names and prompts it was made for and finite float32 vectors (C, D), and names its
      space.
    - Images are uint8 (B, 3, size, size), latents finite float16 (B, F, h, w), both on the CPU, also of none.
      `latents`, `encode` and `pictures` go together: images of latents, latents of images, of one shape each.
    - A row's image depends on its own vector, class and seed alone: it is the same alone, among others, in
      another order, and from a second decoder made alike; and another for another vector.
    - Global random numbers and what it is given stay as they are.
    - `fingerprint` is equal for decoders made alike, and another for other options.
    - `neighbours` has words for every vector. `tile` and `largest_tile` are powers of two, or `tile` is 0.
    - One that looks at known images or their classifier (`KnownDecoder`) is given made-up ones. `begins_at`
      gives rows of known images of the classes asked for, and `plainly` images, too.
    """

    def made(**more: Any) -> Decoder:
        config = DecodeConfig(**{"steps": 2, "tile": 4, **options, **more})
        prompts = [config.prompt.format(name) for name in NAMES]
        if isinstance(decoder, str):
            config = replace(config, decoder=decoder)
            return make_decoder(config, NAMES, prompts, SIZE, "cpu", known=_known())
        spans = name_spans(NAMES, prompts, config.prompt)
        inputs: dict[str, Any] = {"names": NAMES, "prompts": prompts, "spans": spans, "size": SIZE}
        made = decoder(**inputs, device="cpu", **decoder_options(config))
        return made.with_known(_known()) if isinstance(made, KnownDecoder) else made

    with rules_of(decoder):
        first = made()
    rules: list[Callable[[], None]] = [
        partial(_check_book, first, options.get("prompt", DecodeConfig.prompt)),
        partial(_check_tile, first),
        partial(_check_images, first),
        partial(_check_latents, first),
        partial(_check_rows, first),
        partial(_check_known, first),
        partial(_check_identity, first, made, changed or {"steps": options.get("steps", 2) + 1}),
    ]
    run_rules(decoder, rules)


def _known() -> Known:
    """Random pictures of the classes, and the toy network."""
    g = generator(0, "check_decoder known")
    pixels = torch.randint(0, 256, (KNOWN, 3, SIZE, SIZE), dtype=torch.uint8, generator=g)
    images = from_array("known", pixels, torch.arange(KNOWN) % len(NAMES), NAMES)
    network = Toy()
    return Known(images=lambda: images, baseline=lambda: network)


def _inputs(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor]:
    g = generator(0, "check_decoder")
    z = normalize(torch.randn(IMAGES, decoder.book.tokens_CD.shape[1], generator=g), dim=1)
    return z, torch.arange(IMAGES) % len(NAMES), torch.arange(IMAGES) + 7


def _images(decoder: Decoder, z: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    images = decoder(z, y, seed).images_B3HW
    if images is None:
        raise AssertionError("A call returns images_B3HW.")
    return images


def _require_images(images: Tensor, count: int, what: str) -> None:
    shape = (count, 3, SIZE, SIZE)
    require(
        tuple(images.shape) == shape and images.dtype == torch.uint8 and images.device.type == "cpu",
        f"{what} gives images, uint8 of shape {shape} on the CPU; not {images.dtype} of shape "
        f"{tuple(images.shape)} on {images.device}.",
    )


def _check_book(decoder: Decoder, prompt: str) -> None:
    book = decoder.book
    require(tuple(book.names) == NAMES, "book.names are the names that it was made with, in their order.")
    prompts = tuple(prompt.format(name) for name in NAMES)
    require(tuple(book.prompts) == prompts, "book.prompts are the prompts that it was made with.")
    tokens = book.tokens_CD
    require(
        tokens.ndim == 2 and len(tokens) == len(NAMES) and tokens.dtype == torch.float32,
        "book.tokens_CD holds a float32 vector for every class.",
    )
    require(bool(tokens.isfinite().all()), "book.tokens_CD is finite.")
    require(bool(book.space), "book.space names the space of its vectors.")
    words = decoder.neighbours(tokens)
    require(
        len(words) == len(NAMES) and all(isinstance(word, str) for row in words for word in row),
        "neighbours has a list of words for every vector.",
    )


def _check_tile(decoder: Decoder) -> None:
    for name, value in (("tile", decoder.tile), ("largest_tile()", decoder.largest_tile())):
        power = isinstance(value, int) and value >= (name != "tile") and value & (value - 1) == 0
        require(power, f"{name} is a power of two, not {value!r}.")


def _check_images(decoder: Decoder) -> None:
    z, y, seed = _inputs(decoder)
    with untouched(z, y, seed):
        batch = decoder(z, y, seed)
        images = _images(decoder, z, y, seed)
    require(torch.equal(batch.y_B, y), "A batch's y_B are the classes that it was asked for.")
    require(torch.equal(batch.row_B, torch.arange(IMAGES)), "A batch's row_B counts its rows from 0.")
    _require_images(images, IMAGES, "A call")
    _require_images(_images(decoder, z[:0], y[:0], seed[:0]), 0, "A call with no row")
    with untouched(images):
        _require_images(decoder.reconstruct(images), IMAGES, "reconstruct")
    _require_images(decoder.plain(["a circle", "a red star"], seed[:2]), 2, "plain")


def _check_latents(decoder: Decoder) -> None:
    z, y, seed = _inputs(decoder)
    with untouched(z, y, seed):
        latents = decoder.latents(z, y, seed).latents_BFHW
    if latents is None:
        raise AssertionError("latents returns latents_BFHW.")
    require(
        latents.dtype == torch.float16 and latents.ndim == 4 and latents.device.type == "cpu",
        f"latents are float16 (B, F, h, w) on the CPU; not {latents.dtype} of shape {tuple(latents.shape)}.",
    )
    require(
        len(latents) == IMAGES and bool(latents.isfinite().all()), "There is a finite latent for every row."
    )
    none = decoder.latents(z[:0], y[:0], seed[:0]).latents_BFHW
    require(none is not None and none.shape == latents[:0].shape, "Latents of no row have their shape, too.")
    with untouched(latents):
        pictures = decoder.pictures(latents)
    _require_images(pictures, IMAGES, "pictures")
    encoded = decoder.encode(pictures)
    require(
        encoded.shape == latents.shape and encoded.dtype == latents.dtype,
        f"encode gives latents as `latents` does, {tuple(latents.shape)}; not {tuple(encoded.shape)}.",
    )
    far = (pictures.float() - _images(decoder, z, y, seed).float()).abs().mean().item()
    require(
        far < 4, f"pictures of latents are the images of the same vectors; they are {far:.0f} levels off."
    )


def _check_rows(decoder: Decoder) -> None:
    z, y, seed = _inputs(decoder)
    together = _images(decoder, z, y, seed)
    alone = torch.cat([_images(decoder, *(x[i : i + 1] for x in (z, y, seed))) for i in range(IMAGES)])
    backwards = _images(decoder, z.flip(0), y.flip(0), seed.flip(0)).flip(0)
    require(torch.equal(together, alone), "An image is the same alone and among others.")
    require(torch.equal(together, backwards), "An image does not depend on its place in a batch.")
    other = _images(decoder, -z, y, seed)
    differ = (other != together).flatten(1).any(1)
    require(bool(differ.all()), "Another vector gives another image.")


def _check_known(decoder: Decoder) -> None:
    if not isinstance(decoder, KnownDecoder):
        return
    z, y, seed = _inputs(decoder)
    if (rows := decoder.begins_at(y, seed)) is not None:
        of_class = torch.equal(_known().images().labels[rows], y)
        require(of_class, "begins_at gives rows of known images of the classes that it is asked for.")
        backwards = decoder.begins_at(y.flip(0), seed.flip(0))
        same = backwards is not None and torch.equal(rows.flip(0), backwards)
        require(same, "begins_at depends on class and seed alone.")
    plain = decoder.plainly(z, y, seed).images_B3HW
    if plain is None:
        raise AssertionError("plainly returns images_B3HW.")
    _require_images(plain, IMAGES, "plainly")


def _check_identity(decoder: Decoder, made: Make, changed: Mapping[str, Any]) -> None:
    twin, other = made(), made(**changed)
    require(isinstance(decoder.fingerprint, str), "fingerprint is a text.")
    require(decoder.fingerprint == twin.fingerprint, "Decoders made alike have one fingerprint.")
    options = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    require(decoder.fingerprint != other.fingerprint, f"With {options} the fingerprint is another.")
    require(decoder.book.space == twin.book.space, "Decoders made alike have one space.")
    inputs = _inputs(decoder)
    same = torch.equal(_images(decoder, *inputs), _images(twin, *inputs))
    require(same, "Decoders made alike make the same images.")
