"""Decoders are made by name, and what is decoded knows its rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from oodream.config import DecodeConfig
from oodream.core.options import ConfigError
from oodream.core.types import ClassBook, Features, Generated, SampledVectors
from oodream.synthesis.decode import decode, make_decoder, provenance
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import NotFiniteError
from oodream.synthesis.text import PromptError
from tests.helpers.vectors import unit

NAMES = ("circle", "star")


class Flat:
    """A decoder of another kind: an image is as bright as its vector's first number says."""

    def __init__(self, **options) -> None:
        self.options, self.tile, self.fingerprint = options, options["tile"], "flat"
        tokens, prompts = torch.eye(len(options["names"])), tuple(options["prompts"])
        self.book = ClassBook(names=tuple(options["names"]), prompts=prompts, tokens_CD=tokens, space="flat")
        self.calls = []

    def __call__(self, z_BD, y_B, seed_B):
        self.calls.append(len(y_B))
        levels = (z_BD[:, 0] * 100).round().to(torch.uint8)
        images = levels[:, None, None, None].expand(-1, 3, 4, 4)
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def latents(self, z_BD, y_B, seed_B):
        return Generated(latents_BFHW=z_BD[:, :1, None, None].half(), y_B=y_B, row_B=torch.arange(len(y_B)))

    def largest_tile(self) -> int:
        return 4


def flat(**options) -> Flat:
    config = DecodeConfig(decoder=f"{__name__}:Flat", **options)
    prompts = [config.prompt.format(name) for name in NAMES]
    decoder = make_decoder(config, NAMES, prompts, 4, "cpu")
    assert isinstance(decoder, Flat)
    return decoder


def vectors(n: int = 7, space: str = "flat") -> SampledVectors:
    z = torch.stack([torch.linspace(0, 1, n), (1 - torch.linspace(0, 1, n) ** 2).sqrt()], 1)
    y, anchor = torch.arange(n) % 2, torch.arange(n).flip(0)
    knn, seed = torch.linspace(0.1, 0.7, n), torch.arange(n) + 100
    return SampledVectors(z_MD=z, y_M=y, anchor_M=anchor, knn_M=knn, seed_M=seed, kind="outlier", space=space)


def test_a_decoder_of_ones_own_is_made_by_name():
    decoder = flat(source="there", steps=3, scheduler="ddim", guidance=2.0, tile=2, prompt="{} there")
    assert decoder.options == {
        "names": NAMES, "prompts": ["circle there", "star there"], "spans": [(0, 6), (0, 4)], "size": 4,
        "device": "cpu",
        "source": "there", "steps": 3, "scheduler": "ddim", "guidance": 2.0, "tile": 2,
    }  # fmt: skip


def test_the_built_in_one_is_called_stable(tiny_pipeline):
    config = DecodeConfig(source=str(tiny_pipeline), steps=2, tile=2, guidance=1.5, scheduler="ddim")
    prompts = [config.prompt.format(name) for name in NAMES]
    decoder = make_decoder(config, NAMES, prompts, 24, "cpu")
    by_hand = StableDecoder(
        str(tiny_pipeline),
        names=NAMES,
        prompts=prompts,
        size=24,
        steps=2,
        tile=2,
        guidance=1.5,
        scheduler="ddim",
    )
    arguments = unit(2, 32), torch.tensor([0, 1]), torch.tensor([3, 4])
    assert torch.equal(decoder(*arguments).images_B3HW, by_hand(*arguments).images_B3HW)
    assert decoder.fingerprint == by_hand.fingerprint


def test_the_template_says_where_the_name_stands():
    """One class alone, whose word the template holds as well."""
    config = DecodeConfig(decoder=f"{__name__}:Flat", prompt="a photo of a {} on a plain background")
    made = make_decoder(config, ["plain"], [config.prompt.format("plain")], 4, "cpu")
    assert made.options["spans"] == [(13, 18)]
    told = make_decoder(config, ["plain"], [config.prompt.format("plain")], 4, "cpu", spans=[(24, 29)])
    assert told.options["spans"] == [(24, 29)]


def test_what_cannot_be_made_says_why():
    template = DecodeConfig(prompt="a {} on a {surface}")
    with pytest.raises(ConfigError, match=r"decode\.prompt needs"):
        make_decoder(template, NAMES, ["a circle on a table", "a star on a table"], 4, "cpu")
    with pytest.raises(PromptError, match="'star' does not occur"):
        make_decoder(DecodeConfig(), NAMES, ["A high-quality image of the circle"] * 2, 4, "cpu")
    with pytest.raises(ValueError, match=r"No decoder is called 'stabel'. Did you mean 'stable'"):
        make_decoder(DecodeConfig(decoder="stabel"), ["a"], ["A high-quality image of the a"], 4, "cpu")


@pytest.mark.parametrize(("tile", "calls"), [(2, [2, 2, 2, 1]), (8, [7]), (0, [4, 3])])
def test_batches_have_the_decoders_tile(tile, calls):
    decoder = flat(tile=tile)
    batches = list(decode(vectors(), decoder))
    assert decoder.calls == calls
    assert torch.cat([batch.row_B for batch in batches]).tolist() == list(range(7))
    assert torch.cat([batch.y_B for batch in batches]).tolist() == [0, 1, 0, 1, 0, 1, 0]
    levels = torch.cat([batch.images_B3HW[:, 0, 0, 0] for batch in batches])
    assert levels.tolist() == [0, 17, 33, 50, 67, 83, 100]


def test_single_rows_in_any_order_and_as_latents():
    rows = torch.tensor([5, 0, 3])
    (batch,) = decode(vectors(), flat(tile=4), rows)
    assert batch.row_B.tolist() == [5, 0, 3]
    assert batch.images_B3HW[:, 0, 0, 0].tolist() == [83, 0, 50]
    (batch,) = decode(vectors(), flat(tile=4), rows, output="latents")
    assert batch.row_B.tolist() == [5, 0, 3]
    torch.testing.assert_close(
        batch.latents_BFHW[:, 0, 0, 0].float(), vectors().z_MD[rows, 0], atol=1e-3, rtol=0
    )


def test_vectors_of_another_space_are_refused():
    with pytest.raises(ValueError, match=r"of space 'other' and the decoder of 'flat'\. Sample again"):
        next(iter(decode(vectors(space="other"), flat())))


@pytest.mark.parametrize("output", ["images", "latents"])
def test_what_is_not_finite_is_named_by_its_row(tiny_pipeline, output):
    decoder = StableDecoder(str(tiny_pipeline), names=NAMES, steps=2, tile=2)
    decoder.pipeline.unet.conv_out.register_forward_hook(
        lambda _, __, x: x.index_fill(0, torch.tensor(1), math.nan)
    )
    sampled = replace(vectors(space=decoder.book.space), z_MD=unit(7, 32))
    with pytest.raises(NotFiniteError, match=r"^Row 3: the U-Net of the decoder gave NaN"):
        list(decode(sampled, decoder, torch.tensor([5, 3, 0]), output=output))


@pytest.mark.parametrize(
    ("output", "given", "words"),
    [
        ("images", lambda z: Generated(**rows_of(z), images_B3HW=image_of(z).float()), "not torch.float32"),
        ("images", lambda z: Generated(**rows_of(z), images_B3HW=image_of(z)[:1]), "1 images for 4 vectors"),
        (
            "images",
            lambda z: Generated(**rows_of(z), images_B3HW=image_of(z)[:, :1]),
            r"shape \(4, 1, 4, 4\)",
        ),
        ("images", lambda z: Generated(**rows_of(z)), "no images_B3HW, but None"),
        ("images", lambda z: image_of(z), "not Tensor"),
        ("images", lambda z: 1 / 0, r"ZeroDivisionError: .* \(.*test_decode\.py, line"),
        ("latents", lambda z: Generated(**rows_of(z), latents_BFHW=(image_of(z) / 0).half()), "NaN"),
    ],
)
def test_a_decoder_that_gives_something_else_is_named(output, given, words, monkeypatch):
    decoder = flat(tile=4)
    monkeypatch.setattr(Flat, "__call__" if output == "images" else "latents", lambda _, z, y, seed: given(z))
    with pytest.raises(ValueError, match=f"^Flat: .*{words}"):
        list(decode(vectors(), decoder, output=output))


def image_of(z) -> torch.Tensor:
    return torch.zeros(len(z), 3, 4, 4, dtype=torch.uint8)


def rows_of(z) -> dict:
    return {"y_B": torch.zeros(len(z)), "row_B": torch.arange(len(z))}


def test_provenance_by_hand():
    features = Features(
        z_ND=unit(7, 2), y_N=torch.arange(7) % 2, index_N=torch.arange(7) * 2 + 1, encoder="e"
    )
    book, files = flat().book, [f"image{i}" for i in range(15)]
    line = provenance(vectors(), features, book, files, "print", 2)
    assert line == {
        "row": 2, "kind": "outlier", "class": "circle", "prompt": "A high-quality image of the circle",
        "anchor": "image9", "anchor_index": 9, "knn_distance": 0.3, "cosine_to_class": round(1 / 3, 6),
        "seed": 102, "pipeline": "print",
    }  # fmt: skip
