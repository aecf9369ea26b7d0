"""The public check for decoders: the registered one passes, and every broken rule is caught."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import interpolate

from oodream.core.registry import names
from oodream.core.seeding import generator
from oodream.core.types import ClassBook, Generated
from oodream.testing.decoder import check_decoder


@pytest.mark.parametrize("name", names("decoders"))
def test_registered_decoders_keep_the_rules(name, tiny_pipeline):
    check_decoder(name, source=str(tiny_pipeline))


def test_their_options_keep_them_too(tiny_xl_pipeline):
    check_decoder("stable", source=str(tiny_xl_pipeline), scheduler="euler", changed={"guidance": 1.5})


class Blobs:
    """A decoder that keeps the rules, for others to break them one by one: a latent is a few bright spots."""

    def __init__(
        self, *, names, prompts, spans, size, device, source, scheduler, steps, guidance, tile
    ) -> None:
        tokens = torch.eye(6)[: len(names)]
        self.book = ClassBook(names=tuple(names), prompts=tuple(prompts), tokens_CD=tokens, space="blobs")
        self.size, self.tile, self.fingerprint = size, tile, f"blobs-{steps}-{guidance}"

    def largest_tile(self):
        return 16

    def latent(self, z_D, y, seed):
        noise = torch.randn(2, 2, 2, generator=generator(int(seed), "blobs"))
        return (z_D[[0, 1, 2, 3, 4, 5, 0, 1]].view(2, 2, 2) + 0.1 * noise + 0.01 * y).half()

    def latents(self, z_BD, y_B, seed_B):
        rows = [self.latent(*row) for row in zip(z_BD, y_B, seed_B, strict=True)]
        latents = torch.stack(rows) if rows else torch.empty(0, 2, 2, 2, dtype=torch.float16)
        return Generated(latents_BFHW=latents, y_B=y_B, row_B=torch.arange(len(y_B)))

    def pictures(self, latents_BFHW):
        x = latents_BFHW.float().mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return (interpolate(x, (self.size, self.size)) * 60 + 128).clamp(0, 255).to(torch.uint8)

    def __call__(self, z_BD, y_B, seed_B):
        generated = self.latents(z_BD, y_B, seed_B)
        return replace(generated, images_B3HW=self.pictures(generated.latents_BFHW), latents_BFHW=None)

    def encode(self, images_B3HW):
        small = interpolate(images_B3HW.float(), (2, 2), mode="area")[:, :2]
        return ((small - 128) / 60).half()

    def reconstruct(self, images_B3HW):
        return self.pictures(self.encode(images_B3HW))

    def plain(self, prompts, seed_B):
        return torch.zeros(len(prompts), 3, self.size, self.size, dtype=torch.uint8)

    def neighbours(self, z_MD):
        return [["blob", "spot"]] * len(z_MD)


def test_a_decoder_of_ones_own_keeps_the_rules():
    check_decoder(Blobs)
    check_decoder(f"{__name__}:Blobs", changed={"guidance": 7.0})


class OtherNames(Blobs):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.book = replace(self.book, names=self.book.names[::-1])


class HalfVectors(Blobs):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.book = replace(self.book, tokens_CD=self.book.tokens_CD.half())


class NoSpace(Blobs):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.book = replace(self.book, space="")


class OddTile(Blobs):
    def largest_tile(self):
        return 12


class Floats(Blobs):
    def pictures(self, latents_BFHW):
        return super().pictures(latents_BFHW).float() / 255


class OwnSize(Blobs):
    def pictures(self, latents_BFHW):
        return super().pictures(latents_BFHW)[..., :-1]


class NoEmptyBatch(Blobs):
    def latents(self, z_BD, y_B, seed_B):
        latents = torch.stack([self.latent(*row) for row in zip(z_BD, y_B, seed_B, strict=True)])
        return Generated(latents_BFHW=latents, y_B=y_B, row_B=torch.arange(len(y_B)))


class BatchNorm(Blobs):
    """An image depends on its neighbours."""

    def pictures(self, latents_BFHW):
        return super().pictures(latents_BFHW - latents_BFHW.mean(0) if len(latents_BFHW) else latents_BFHW)


class ByPlace(Blobs):
    def latents(self, z_BD, y_B, seed_B):
        return super().latents(z_BD, y_B, torch.arange(len(y_B)))


class Deaf(Blobs):
    """Does not listen to the vector."""

    def latent(self, z_D, y, seed):
        return super().latent(torch.zeros_like(z_D), y, seed)


class GlobalNumbers(Blobs):
    def latent(self, z_D, y, seed):
        return super().latent(z_D, y, seed) + torch.randn(()).half()


class Scribbler(Blobs):
    def latents(self, z_BD, y_B, seed_B):
        z_BD.mul_(-1)
        return super().latents(z_BD, y_B, seed_B)


class FullLatents(Blobs):
    def latents(self, z_BD, y_B, seed_B):
        generated = super().latents(z_BD, y_B, seed_B)
        return replace(generated, latents_BFHW=generated.latents_BFHW.float())


class NotANumber(Blobs):
    def latents(self, z_BD, y_B, seed_B):
        generated = super().latents(z_BD, y_B, seed_B)
        return replace(generated, latents_BFHW=generated.latents_BFHW * torch.nan)


class OtherPictures(Blobs):
    """Pictures of latents at another scale than images."""

    def __call__(self, z_BD, y_B, seed_B):
        generated = super().__call__(z_BD, y_B, seed_B)
        return replace(generated, images_B3HW=255 - generated.images_B3HW)


class FlatCode(Blobs):
    def encode(self, images_B3HW):
        return super().encode(images_B3HW).flatten(2)

    def reconstruct(self, images_B3HW):
        return images_B3HW


class NoFingerprint(Blobs):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.fingerprint = "blobs"


class NewFingerprint(Blobs):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.fingerprint = str(id(self))


class Instances(Blobs):
    """Every one of them has weights of its own."""

    @staticmethod
    @cache
    def seen() -> list[int]:
        return [0]

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.seen()[0] += 1
        self.number = self.seen()[0]

    def latent(self, z_D, y, seed):
        return super().latent(z_D, y, seed + 1000 * self.number)


class OneWord(Blobs):
    def neighbours(self, z_MD):
        return ["blob"]


class WrongRows(Blobs):
    def __call__(self, z_BD, y_B, seed_B):
        return replace(super().__call__(z_BD, y_B, seed_B), row_B=seed_B)


class NoPlain(Blobs):
    plain = None


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (OtherNames, "book.names are the names"),
        (HalfVectors, "a float32 vector for every class"),
        (NoSpace, "names the space"),
        (OddTile, r"largest_tile\(\) is a power of two, not 12"),
        (Floats, "A call gives images, uint8"),
        (OwnSize, "A call gives images, uint8"),
        (NoEmptyBatch, "it raises RuntimeError"),
        (BatchNorm, "alone and among others"),
        (ByPlace, "alone and among others|its place in a batch"),
        (Deaf, "Another vector gives another image"),
        (GlobalNumbers, "generators of its own"),
        (Scribbler, "leave the tensors"),
        (FullLatents, "latents are float16"),
        (NotANumber, "a finite latent for every row"),
        (OtherPictures, "levels off"),
        (FlatCode, "encode gives latents as"),
        (NoFingerprint, "With steps=3 the fingerprint is another"),
        (NewFingerprint, "one fingerprint"),
        (Instances, "make the same images"),
        (OneWord, "a list of words for every vector"),
        (WrongRows, "row_B counts its rows from 0"),
        (NoPlain, "it raises TypeError"),
    ],
)
def test_what_breaks_a_rule_is_caught(broken, rule):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*({rule})"):
        check_decoder(broken)


def test_an_option_that_a_decoder_does_not_have_is_told_with_its_name():
    with pytest.raises(AssertionError, match=r"^Blobs: it raises TypeError \(.*'colour'"):
        check_decoder(Blobs, colour="red")
