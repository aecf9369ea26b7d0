"""Exact k-th-nearest-neighbour distances in bounded memory, between points that the caller chooses."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kth_distance", "largest_products"]


def kth_distance(
    query_QD: Tensor, base_ND: Tensor, k: int, *, self_Q: Tensor | None = None, chunk_bytes: int = 2**26
) -> Tensor:
    """Euclidean distance from each query to its k-th nearest base point: float32 (Q,), k counted from 1.

    `self_Q` holds, for each query, the row of the base that is the query itself and must not be its
    neighbour. The search is exhaustive; about `chunk_bytes` of distances exist at once.

    Raises ValueError when fewer than k points are available.
    """
    available = len(base_ND) - (self_Q is not None)
    if not 1 <= k <= available:
        raise ValueError(f"The {k}-th nearest neighbour is asked for, but {available} points are available.")
    query_QD, base_ND = query_QD.float(), base_ND.float()
    half_square_N = base_ND.square().sum(1) / 2
    rows = max(1, chunk_bytes // (base_ND.element_size() * len(base_ND)))
    distances = []
    for start in range(0, len(query_QD), rows):
        query_BD = query_QD[start : start + rows]
        # Orders as the distance does: |q - b|^2 / 2 less the query's own |q|^2 / 2.
        rank_BN = torch.addmm(half_square_N, query_BD, base_ND.T, alpha=-1)
        if self_Q is not None:
            rank_BN.scatter_(1, self_Q[start : start + rows, None], torch.inf)
        # Quickselect takes one time whatever k is; topk is faster for a small k.
        kth_B = (
            rank_BN.kthvalue(k, dim=1).indices
            if 16 * k > len(base_ND)
            else rank_BN.topk(k, dim=1, largest=False).indices[:, -1]
        )
        # The distance comes from the difference: expanding the square would cancel a close neighbour's
        # digits.
        distances.append((query_BD - base_ND[kth_B]).norm(dim=1))
    return torch.cat(distances) if distances else query_QD.new_empty(0)


def largest_products(query_QD: Tensor, base_ND: Tensor, k: int, *, chunk_bytes: int = 2**26) -> Tensor:
    """The k largest inner products of each query with the base points, descending: (Q, k).

    At most about `chunk_bytes` of products exist at once.
    """
    rows = max(1, chunk_bytes // (base_ND.element_size() * len(base_ND)))
    parts = [(part_BD @ base_ND.T).topk(k, dim=1).values for part_BD in query_QD.split(rows)]
    return torch.cat(parts) if parts else query_QD.new_empty(0, k)
