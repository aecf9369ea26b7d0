"""The exact acceleration of the kNN sampler: noise that anchors share in halves, and a selection that
measures few distances.

Nothing here says where vectors are sampled; `knn` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ...core.device import on_device
from ...functional.knn import kth_distance

__all__ = ["Cloud", "farthest"]


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """`count` noisy copies of each of A anchors b; only their noise is stored, in halves p and q that the
    anchors share.

    Candidate h < H of anchor a is b_a + p_h + q_(a + h), and candidate H + h is b_a + p_h - q_(a + h), over
    their norms.

    The rows of p and q are independent N(0, sigma^2 / 2 I). A rotation by 45 degrees of a Gaussian pair is
    such a pair: p + q and p - q are independent N(0, sigma^2 I). So one anchor's candidates are distributed
    exactly as if all their noise were their own. No two anchors meet in a pair: the noises of two anchors'
    candidates correlate by 0 or 1/2, where the published code gives all anchors of a round the same noise.

    A product with any x is then a sum of products that are made once for all anchors: b.x + p.x ± q.x.
    """

    b_AD: Tensor
    p_HD: Tensor
    q_KD: Tensor  # K >= A + H - 1
    count: int

    @classmethod
    def draw(cls, b_AD: Tensor, count: int, sigma: float, g: torch.Generator) -> Cloud:
        """A cloud of fresh noise with standard deviation `sigma` per coordinate."""
        half = (count + 1) // 2
        p_HD, q_KD = (
            on_device(torch.randn(n, b_AD.shape[1], generator=g).mul_(sigma / math.sqrt(2)), b_AD.device)
            for n in (half, half + len(b_AD) - 1)
        )
        return cls(b_AD=b_AD, p_HD=p_HD, q_KD=q_KD, count=count)

    @classmethod
    def shared(cls, b_AD: Tensor, count: int, sigma: float, g: torch.Generator) -> Cloud:
        """A cloud in which candidate c of every anchor has the same noise."""
        noise_HD = torch.randn(count, b_AD.shape[1], generator=g).mul_(sigma)
        p_HD = on_device(noise_HD, b_AD.device)
        return cls(
            b_AD=b_AD, p_HD=p_HD, q_KD=p_HD.new_zeros(count + len(b_AD) - 1, b_AD.shape[1]), count=count
        )

    def first(self, anchors: int) -> Cloud:
        """The same candidates of the first `anchors` anchors only."""
        return replace(self, b_AD=self.b_AD[:anchors])

    def take(self, a_R: Tensor, c_R: Tensor) -> Tensor:
        """Candidates c of anchors a, unit norm: (R, D)."""
        h_R, side_R = c_R % len(self.p_HD), 1 - 2 * (c_R // len(self.p_HD))
        return normalize(self.b_AD[a_R] + self.p_HD[h_R] + side_R[:, None] * self.q_KD[a_R + h_R], dim=1)

    def norm_and_dot(self, x_D: Tensor) -> tuple[Tensor, Tensor]:
        """Of each candidate before its norm is taken out: that norm, and the product with x; two of (A,
        count).
        """
        b_AD, p_HD, q_KD, device = self.b_AD, self.p_HD, self.q_KD, self.b_AD.device
        pair_AH = (torch.arange(len(b_AD))[:, None] + torch.arange(len(p_HD))).to(device)
        # Of all products q.p only those near the diagonal are of pairs. A GPU makes all of them sooner.
        band = 64 if device.type == "cpu" else len(p_HD)
        bands = (
            (q_KD[band * i :][: band + len(b_AD)] @ p_BD.T, len(p_BD))
            for i, p_BD in enumerate(p_HD.split(band))
        )
        pq_AH = torch.cat([qp_KB.gather(0, pair_AH[:, :n]) for qp_KB, n in bands], 1)
        bq_AH = (b_AD @ q_KD.T).gather(1, pair_AH)
        b2_A, p2_H, q2_K = (x.square().sum(1) for x in (b_AD, p_HD, q_KD))
        square_AC = self._turn(b2_A[:, None] + p2_H + q2_K[pair_AH] + 2 * b_AD @ p_HD.T, 2 * (bq_AH + pq_AH))
        return square_AC.sqrt(), self._turn((b_AD @ x_D)[:, None] + p_HD @ x_D, (q_KD @ x_D)[pair_AH])

    def _turn(self, base_AH: Tensor, turn_AH: Tensor) -> Tensor:
        """base ± turn in the order of the candidates: (A, count)."""
        return torch.cat([base_AH + turn_AH, base_AH - turn_AH], 1)[:, : self.count]

    def near(self, z_ND: Tensor, limit_AC: Tensor, block: int = 0, together: int = 0) -> Tensor:
        """How many of z have a product of `limit` or more with each candidate, its norm left in: float32 (A,
        count).

        The products of `block` of z and `together` anchors exist at once. A processor's caches hold those of
        128 and one anchor, and a GPU is fastest with more: 0 is what suits the device.
        """
        half, device = len(self.p_HD), self.b_AD.device
        limit_A2H1 = pad(limit_AC, (0, 2 * half - self.count)).view(-1, 2, half, 1)
        near_A2H = torch.zeros(limit_A2H1.shape[:3], device=device)
        together = together or (1 if device.type == "cpu" else len(near_A2H))
        for z_BD in z_ND.split(block or (128 if device.type == "cpu" else 512)):
            bz_AB, pz_HB, qz_KB = (x @ z_BD.T for x in (self.b_AD, self.p_HD, self.q_KD))
            qz_A2HB = torch.stack([qz_KB, -qz_KB]).unfold(1, half, 1).permute(1, 0, 3, 2)  # a view
            buffer = torch.empty(together, 2, *pz_HB.shape, device=device)
            for start in range(0, len(near_A2H), together):
                g = slice(start, start + together)
                sum_GHB = pz_HB + bz_AB[g, None]
                product_G2HB = torch.add(sum_GHB[:, None], qz_A2HB[g], out=buffer[: len(sum_GHB)])
                # In place the comparison writes floats: their sum is several times faster than of booleans.
                near_A2H[g] += product_G2HB.ge_(limit_A2H1[g]).sum(3)
        return near_A2H.flatten(1)[:, : self.count]


def farthest(cloud: Cloud, z_ND: Tensor, k: int, kept: int, sign: int = 1) -> tuple[Tensor, Tensor]:
    """The `kept` candidates of each anchor with the largest (`sign` -1: smallest) distance to their k-th
    nearest z.

    Returns them and the distances, best first: (A, kept, D) and (A, kept). z has unit norm.

    The selection is exact, but few distances are measured. First those of a few candidates whose product with
    the mean of z is extreme: their kept-th best is a bound t that every winner reaches. The k-th nearest z
    lies beyond t if and only if fewer than k lie within it, which is a count and needs no sorting. Then those
    of the few candidates that pass.
    """

    def signed_distance(a_R: Tensor, c_R: Tensor) -> Tensor:
        parts = zip(a_R.split(4096), c_R.split(4096), strict=True)
        return torch.cat([sign * kth_distance(cloud.take(a, c), z_ND, k) for a, c in parts])

    norm_AC, dot_AC = cloud.norm_and_dot(z_ND.mean(0))
    trial_AT = (-sign * dot_AC / norm_AC).topk(min(kept + 4, cloud.count)).indices
    a_A1 = torch.arange(len(norm_AC), device=z_ND.device)[:, None]
    t_A1 = (
        signed_distance(a_A1.expand_as(trial_AT).flatten(), trial_AT.flatten())
        .view(trial_AT.shape)
        .topk(kept)
        .values[:, -1:]
    )
    # |v - z|^2 = 2 - 2 v.z. Thanks to the margin, rounding in float32 may add a candidate, never lose one.
    near_AC = cloud.near(z_ND, norm_AC * (1 - t_A1.square() / 2 + sign * 1e-5))
    a_R, c_R = (near_AC < k if sign > 0 else near_AC >= k).nonzero(as_tuple=True)
    d_AC = torch.full_like(norm_AC, -torch.inf)
    d_AC[a_R, c_R] = signed_distance(a_R, c_R)
    d_AM, c_AM = d_AC.topk(kept)
    v_RD = cloud.take(a_A1.expand_as(c_AM).flatten(), c_AM.flatten())
    return v_RD.view(*c_AM.shape, -1), sign * d_AM
