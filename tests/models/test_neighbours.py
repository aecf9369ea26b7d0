"""The nearest images by the cosine of features, against brute force."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from oodream.data.images import Images, from_array
from oodream.models.factory import backbone
from oodream.models.inference import Extractor
from oodream.models.neighbours import Neighbours


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(backbone("resnet8", 3))


def pictures(n: int) -> Images:
    pixels = torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(n))
    return from_array("x", pixels.to(torch.uint8), torch.arange(n) % 3, ["a", "b", "c"])


def test_they_are_those_of_the_largest_cosine(extractor):
    known, asked = pictures(30), extractor(pictures(4)).z_BF
    found = Neighbours(extractor, known).nearest(asked, 5)
    cosine_BN = cosine_similarity(asked[:, None], extractor(known).z_BF[None], dim=2)
    for neighbours, cosine_N in zip(found, cosine_BN, strict=True):
        assert [one.row for one in neighbours] == cosine_N.argsort(descending=True)[:5].tolist()
        assert [one.cosine for one in neighbours] == pytest.approx(cosine_N.sort(descending=True).values[:5])


def test_a_picture_is_nearest_to_itself_and_of_a_few_there_are_only_these(extractor):
    known = pictures(6)
    found = Neighbours(extractor, known).nearest(extractor(known).z_BF, 9)
    assert [neighbours[0].row for neighbours in found] == list(range(6))
    assert {len(neighbours) for neighbours in found} == {6}


def test_of_a_large_set_every_nth_is_searched(extractor):
    known = pictures(30)
    neighbours = Neighbours(extractor, known, most=8)
    assert neighbours.rows_N.tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    z_BF = extractor(known).z_BF[[12]]
    assert neighbours.nearest(z_BF, 1)[0][0].row == 12, "rows are those of the whole set"
