"""The detail that decoders lose, lent to what they draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from oodream.data.images import from_array
from oodream.training.batches import epoch_batches
from oodream.training.detail import Detail
from tests.helpers.training import UNMOVED, images, known, outliers

LOST = torch.tensor([-30, 0, 40, 200])
KNOWN = 128 + LOST.clamp(max=127)


def flat(name: str, levels: torch.Tensor):
    pixels = levels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    return from_array(name, pixels, torch.zeros(len(levels)), ("a",))


def detail() -> Detail:
    """Four flat known images whose reconstructions lost -30, 0, 40 and 127 levels."""
    return Detail(known=flat("known", KNOWN), reconstructed=flat("rebuilt", torch.full((4,), 128)))


def test_every_image_gets_the_detail_of_one_known_image_cut_off_at_white():
    lent = detail()(
        flat("drawn", torch.full((400,), 150)).batch(range(400)), torch.Generator().manual_seed(0)
    )
    levels, counts = lent.flatten(1)[:, 0].unique(return_counts=True)
    assert levels.tolist() == [120, 150, 190, 255]
    assert (counts > 60).all()
    assert (lent == lent[:, :1, :1, :1]).all()


def test_a_source_lends_detail_to_its_own_images_alone():
    """Known images of 0 to 59 levels stay as they are; flat outliers are shown with one of four details."""
    drawn = outliers(flat("drawn", torch.full((10,), 150)), ratio=0.5)
    plain, lent = (
        next(epoch_batches([known(images(64, size=8)), source], UNMOVED, 0, 0)).images_B3HW
        for source in (drawn, replace(drawn, detail=detail()))
    )
    assert torch.equal(plain[:16], lent[:16])
    assert plain[16:].unique().tolist() == [150]
    assert {120, 150, 190, 255} >= {*lent[16:].unique().tolist()} > {150}


def test_images_without_their_reconstructions_are_refused():
    with pytest.raises(ValueError, match="4 of the ones and 3 of the others"):
        Detail(known=flat("known", KNOWN), reconstructed=flat("rebuilt", KNOWN[:3]))
