"""DREAM-OOD's sampler: Gaussian noise around a class's boundary features, kept where the class is least likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ...core.registry import register
from ...core.seeding import derive, generator
from ...core.types import Features, SampledVectors
from ...functional.knn import kth_distance


@register("samplers", "knn")
@dataclass(frozen=True, kw_only=True)
class KNN:
    """Vectors around each class's features by distance to the k-th nearest feature (DREAM-OOD, section 3.2; NPOS).

    Per class: the share `boundary` of its features with the largest distance to their k-th neighbour are boundary points. Each
    round takes `anchors` of them, draws `candidates` noisy copies of each, normalise(b + sigma * noise), and keeps the `kept`
    copies with the largest distance. `kind="inlier"` takes the smallest distances both times (DREAM-ID). The copies of an anchor
    are independent and the selection is exact; the anchors of a round share noise in halves, as `Cloud` says.

    `k` defaults to a fifth of the class. `cosine` is the mean cos(copy, b) before selection and stands for sigma at any width D:
    sigma^2 = (1 / cosine^2 - 1) / D; the papers' sigmas at D = 768 are 0.77 (ImageNet-100) and 0.46 (CIFAR-100).

    As the published code does: `select="random"` keeps random copies (in effect); `count_self` makes each feature its own first
    neighbour; `shared_noise` gives all anchors of a round the same noise; and `images` seeds are drawn for every vector.
    """

    kind: str = "outlier"
    k: int | None = None
    boundary: float = 0.2
    cosine: float = 0.87
    candidates: int = 500
    anchors: int = 50
    kept: int = 2
    select: str = "distance"
    count_self: bool = False
    shared_noise: bool = False
    images: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("outlier", "inlier"):
            raise ValueError(f"kind is 'outlier' or 'inlier', not {self.kind!r}.")
        if self.select not in ("distance", "random"):
            raise ValueError(f"select is 'distance' or 'random', not {self.select!r}.")
        if not 0 < self.cosine < 1 or not 0 < self.boundary <= 1:
            raise ValueError("cosine lies in (0, 1) and boundary in (0, 1].")
        if not 1 <= self.kept <= self.candidates or self.anchors < 1:
            raise ValueError("kept lies in [1, candidates], and anchors is at least 1.")
        if self.images < 1:
            raise ValueError("Every vector needs at least one image.")

    def sigma(self, width: int) -> float:
        """The noise's standard deviation per coordinate at embedding width D."""
        return math.sqrt((1 / self.cosine**2 - 1) / width)

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` vectors for every label in `features`, classes interleaved: row m is of class m mod C.

        Raises ValueError where `check` does.
        """
        classes = features.y_N.unique().tolist()
        self.check(features.y_N, list(map(str, range(max(classes) + 1))))
        ks = {c: self.neighbour(int((features.y_N == c).sum())) for c in classes}
        drawn = [
            self._of_class(features, c, ks[c], math.ceil(per_class / self.images), seed) for c in classes
        ]
        z, anchor, knn = (
            torch.stack(part, 1).repeat_interleave(self.images, 0)[:per_class].flatten(0, 1)
            for part in zip(*drawn, strict=True)
        )
        y = torch.tensor(classes).repeat(per_class)
        seeds = torch.tensor([derive(seed, self.kind, "image", m) for m in range(len(y))])
        return SampledVectors(
            z_MD=z, y_M=y, anchor_M=anchor, knn_M=knn, seed_M=seeds, kind=self.kind, space=space
        )

    def neighbour(self, n: int) -> int:
        """k for a class of n images."""
        return max(1, n // 5) if self.k is None else self.k

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Raises ValueError, naming the class, where one has fewer than k + 1 images."""
        for c, n in zip(*(part.tolist() for part in y_N.unique(return_counts=True)), strict=True):
            if n < (k := self.neighbour(n)) + 1:
                raise ValueError(
                    f"Class {names[c]!r} has {n} images; the {k}-th neighbour needs {k + 1}. Add images or lower k."
                )

    def _of_class(
        self, features: Features, c: int, k: int, per_class: int, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (per_class, D), their anchors' rows in `features`, and their distances."""
        rows = (features.y_N == c).nonzero()[:, 0]
        z_ND = normalize(features.z_ND[rows].float(), dim=1)
        sigma, sign = self.sigma(z_ND.shape[1]), 1 if self.kind == "outlier" else -1
        distance = kth_distance(z_ND, z_ND, k, self_Q=None if self.count_self else torch.arange(len(rows)))
        boundary = (-sign * distance).argsort(stable=True)[: math.ceil(self.boundary * len(rows))]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        while (missing := per_class - sum(len(v) for v, _, _ in found)) > 0:
            g = generator(seed, self.kind, c, len(found))
            b_A = boundary[torch.randperm(len(boundary), generator=g)[: self.anchors]]
            if self.select == "random":
                noise_AMD = torch.randn(
                    1 if self.shared_noise else len(b_A), self.kept, z_ND.shape[1], generator=g
                )
                v_MD = normalize(z_ND[b_A, None] + sigma * noise_AMD, dim=2).flatten(0, 1)
                d_M = kth_distance(v_MD, z_ND, k)
            else:
                draw = Cloud.shared if self.shared_noise else Cloud.draw
                cloud = draw(z_ND[b_A], self.candidates, sigma, g).first(math.ceil(missing / self.kept))
                v_MD, d_M = (x.flatten(0, 1) for x in farthest(cloud, z_ND, k, self.kept, sign))
            found.append((v_MD, rows[b_A].repeat_interleave(self.kept)[: len(v_MD)], d_M))
        z, anchor, knn = (torch.cat(part)[:per_class] for part in zip(*found, strict=True))
        return z, anchor, knn


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """`count` noisy copies of each of A anchors b, of which only the noise is stored, in halves p and q that the anchors share.

    Candidate h < H of anchor a is b_a + p_h + q_(a + h), and candidate H + h is b_a + p_h - q_(a + h), over their norms. The rows
    of p and q are independent N(0, sigma^2 / 2 I), and a rotation by 45 degrees of a Gaussian pair is such a pair: p + q and p - q
    are independent N(0, sigma^2 I), so one anchor's candidates are distributed exactly as if all their noise were their own. No two
    anchors meet in a pair: the noises of two anchors' candidates correlate by 0 or 1/2, where the reference gives all anchors of
    a round the same noise. A product with any x is then a sum of products made once for all anchors, b.x + p.x ± q.x.
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
            torch.randn(n, b_AD.shape[1], generator=g).mul_(sigma / math.sqrt(2))
            for n in (half, half + len(b_AD) - 1)
        )
        return cls(b_AD=b_AD, p_HD=p_HD, q_KD=q_KD, count=count)

    @classmethod
    def shared(cls, b_AD: Tensor, count: int, sigma: float, g: torch.Generator) -> Cloud:
        """A cloud in which candidate c of every anchor has the same noise."""
        p_HD = torch.randn(count, b_AD.shape[1], generator=g).mul_(sigma)
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

    def norm_and_dot(self, x_D: Tensor, band: int = 64) -> tuple[Tensor, Tensor]:
        """Of each candidate before its norm is taken out: that norm, and the product with x; two of (A, count)."""
        b_AD, p_HD, q_KD = self.b_AD, self.p_HD, self.q_KD
        pair_AH = torch.arange(len(b_AD))[:, None] + torch.arange(len(p_HD))
        # Of all products q.p only those near the diagonal are of pairs.
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

    def near(self, z_ND: Tensor, limit_AC: Tensor, block: int = 512) -> Tensor:
        """How many of z have a product of `limit` or more with each candidate, its norm left in: float32 (A, count)."""
        half = len(self.p_HD)
        limit_A2H1 = pad(limit_AC, (0, 2 * half - self.count)).view(-1, 2, half, 1)
        near_A2H = torch.zeros(limit_A2H1.shape[:3])
        for z_BD in z_ND.split(block):
            bz_AB, pz_HB, qz_KB = (x @ z_BD.T for x in (self.b_AD, self.p_HD, self.q_KD))
            qz_2KB, product_2HB = torch.stack([qz_KB, -qz_KB]), torch.empty(2, *pz_HB.shape)
            for a, bz_B in enumerate(bz_AB):
                torch.add(pz_HB + bz_B, qz_2KB[:, a : a + half], out=product_2HB)
                # In place the comparison writes floats, whose sum is several times faster than that of booleans.
                near_A2H[a] += product_2HB.ge_(limit_A2H1[a]).sum(2)
        return near_A2H.flatten(1)[:, : self.count]


def farthest(cloud: Cloud, z_ND: Tensor, k: int, kept: int, sign: int = 1) -> tuple[Tensor, Tensor]:
    """The `kept` candidates of each anchor with the largest (`sign` -1: smallest) distance to their k-th nearest z.

    Returns them and the distances, best first: (A, kept, D) and (A, kept). z has unit norm. The selection is exact, but few
    distances are measured. First those of a few candidates with an extreme product with the mean of z: their kept-th best is a
    bound t that every winner reaches. The k-th nearest z lies beyond t if and only if fewer than k lie within: a count, with no
    sorting. Then those of the few candidates that pass.
    """

    def measure(a_R: Tensor, c_R: Tensor) -> Tensor:
        parts = zip(a_R.split(4096), c_R.split(4096), strict=True)
        return torch.cat([sign * kth_distance(cloud.take(a, c), z_ND, k) for a, c in parts])

    norm_AC, dot_AC = cloud.norm_and_dot(z_ND.mean(0))
    trial_AT = (-sign * dot_AC / norm_AC).topk(min(kept + 4, cloud.count)).indices
    a_A1 = torch.arange(len(norm_AC))[:, None]
    t_A1 = (
        measure(a_A1.expand_as(trial_AT).flatten(), trial_AT.flatten())
        .view(trial_AT.shape)
        .topk(kept)
        .values[:, -1:]
    )
    # |v - z|^2 = 2 - 2 v.z. The margin lets rounding in float32 add a candidate to be measured, never lose one.
    near_AC = cloud.near(z_ND, norm_AC * (1 - t_A1.square() / 2 + sign * 1e-5))
    a_R, c_R = (near_AC < k if sign > 0 else near_AC >= k).nonzero(as_tuple=True)
    d_AC = torch.full_like(norm_AC, -torch.inf)
    d_AC[a_R, c_R] = measure(a_R, c_R)
    d_AM, c_AM = d_AC.topk(kept)
    v_RD = cloud.take(a_A1.expand_as(c_AM).flatten(), c_AM.flatten())
    return v_RD.view(*c_AM.shape, -1), sign * d_AM
