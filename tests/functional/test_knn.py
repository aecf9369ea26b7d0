from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from oodream.functional.knn import kth_distance


def unit(n: int, d: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def brute(query: Tensor, base: Tensor, k: int) -> np.ndarray:
    distances = np.linalg.norm(query.double().numpy()[:, None] - base.double().numpy()[None], axis=2)
    return np.sort(distances, axis=1)[:, k - 1]


@pytest.mark.parametrize("k", [1, 5, 60])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_agrees_with_a_brute_force_search(k: int, scale: float) -> None:
    query, base = unit(40, 16, 0) * scale, unit(60, 16, 1)
    found = kth_distance(query, base, k)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), brute(query, base, k), rtol=1e-5)


def test_a_point_is_not_its_own_neighbour() -> None:
    base = unit(50, 8, 0)
    rows = torch.tensor([3, 49, 0, 3])
    assert kth_distance(base[rows], base, 1).eq(0).all()
    found = kth_distance(base[rows], base, 4, self_Q=rows)
    np.testing.assert_allclose(found.numpy(), brute(base[rows], base, 5), rtol=1e-5)
    assert kth_distance(base[rows], base, 49, self_Q=rows).isfinite().all()


def test_the_chunk_changes_nothing() -> None:
    base = unit(200, 16, 0)
    rows = torch.arange(200)
    whole = kth_distance(base, base, 7, self_Q=rows)
    for chunk_bytes in (1, 4 * 200 * 33):
        torch.testing.assert_close(
            kth_distance(base, base, 7, self_Q=rows, chunk_bytes=chunk_bytes), whole, rtol=1e-6, atol=0
        )


def test_a_close_neighbour_keeps_its_digits() -> None:
    base = unit(20, 64, 0)
    shift = torch.zeros(64)
    shift[0] = 1e-5
    expected = brute(base + shift, base, 1)
    np.testing.assert_allclose(kth_distance(base + shift, base, 1).numpy(), expected, rtol=1e-3)


def test_no_queries_give_no_distances() -> None:
    assert kth_distance(torch.zeros(0, 4), torch.zeros(3, 4), 1).shape == (0,)


@pytest.mark.parametrize(("k", "self_Q"), [(0, None), (6, None), (5, torch.tensor([0]))])
def test_too_few_points_are_refused(k: int, self_Q: Tensor | None) -> None:
    with pytest.raises(ValueError, match="points are available"):
        kth_distance(torch.zeros(1, 3), torch.zeros(5, 3), k, self_Q=self_Q)
