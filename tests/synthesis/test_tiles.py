"""Tiles: found by measuring, halved when memory runs out."""

from __future__ import annotations

import time

import pytest
import torch

from oodream.core import memory
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError
from tests.helpers.vectors import unit


def small_memory(monkeypatch, decoder: StableDecoder, most: int) -> None:
    """A U-Net that runs out of memory when more than `most` images come at once (with guidance, twice as many
    rows).
    """
    forward = decoder.pipeline.unet.forward

    def limited(sample, *args, **kwargs):
        if len(sample) > 2 * most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(decoder.pipeline.unet, "forward", limited)


def test_out_of_memory_halves_the_tile_and_goes_on(tiny_pipeline, monkeypatch):
    z, y, seed = unit(11, 32), torch.zeros(11, dtype=torch.long), torch.arange(11)
    expected = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)(z, y, seed).images_B3HW
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=8)
    small_memory(monkeypatch, decoder, 2)
    with pytest.warns(UserWarning, match=r"from here on 2 images are drawn together.*--decode.tile 2"):
        images = decoder(z, y, seed).images_B3HW
    assert decoder.tile == 2
    assert torch.equal(images, expected)


def test_when_nothing_fits_it_says_so(tiny_pipeline, monkeypatch):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)
    small_memory(monkeypatch, decoder, 0)
    with (
        pytest.warns(UserWarning, match="here on 1 images"),
        pytest.raises(DecoderError, match="one image of 32 pixels"),
    ):
        decoder.plain(["a circle"], torch.tensor([0]))


def test_a_tile_of_0_is_found_and_stays(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=0)
    z, y, seed = unit(3, 32), torch.zeros(3, dtype=torch.long), torch.arange(3)
    images = decoder(z, y, seed).images_B3HW
    assert decoder.tile == 64  # this pipeline is tiny
    fixed = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=64)
    assert torch.equal(images, fixed(z, y, seed).images_B3HW)


@pytest.mark.parametrize(("free", "tile"), [(10.0, 1), (25.0, 2), (49.0, 2), (50.0, 4), (1e6, 64)])
def test_the_tile_is_the_largest_that_fits(tiny_pipeline, monkeypatch, free, tile):
    """One image takes 10, every further one 10 more, and a fifth of the memory is left alone."""
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=0)
    needed = iter((10, 20))

    class Watch(memory.Watch):
        def __exit__(self, *error):
            super().__exit__(*error)
            self.most = self.before + next(needed)

    monkeypatch.setattr(memory, "Watch", Watch)
    monkeypatch.setattr(memory, "free", lambda device: free)
    assert decoder.largest_tile() == tile


def test_memory_is_measured():
    with memory.Watch(torch.device("cpu")) as watch:
        held = torch.ones(50_000_000)  # 200 MB
        time.sleep(0.1)
    assert held.sum() > 0
    assert 150e6 < watch.most - watch.before < 400e6


def test_other_errors_are_not_taken_for_memory(tiny_pipeline, monkeypatch):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)

    def broken(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(decoder.pipeline.unet, "forward", broken)
    for work in (lambda: decoder.plain(["a circle"], torch.tensor([0])), decoder.largest_tile):
        with pytest.raises(RuntimeError, match="shapes differ"):
            work()
