"""DREAM-OOD's sampler in its ImageNet setting, against the recipe as published in the same run.

1,000 unit features of width 768 in a class: k = 300, 200 boundary points, sigma 0.03, rounds of 50 anchors
with 1,500 candidates each, of which 2 are kept. A repeat of the recipe measures the k-th neighbour of all
75,000 candidates; repeats are alike, so a few are timed and scaled. faiss is timed, too, where it is
installed (pip install faiss-cpu). On a GPU 100 classes are sampled whole, and the recipe's repeats run
there, too.

python benchmarks/sample.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from _bench import Row, Setting, alone, clock, flops, profiled
from torch import Tensor
from torch.nn.functional import normalize

from oodream.core.types import Features, SampledVectors
from oodream.synthesis.samplers.knn import KNN

try:
    import faiss
except ModuleNotFoundError:
    faiss = None

__all__ = ["LINES"]

N, D, K, BOUNDARY, SIGMA, ANCHORS, CANDIDATES, KEPT = 1000, 768, 300, 200, 0.03, 50, 1500, 2
SAMPLER = KNN(
    k=K,
    boundary=BOUNDARY / N,
    cosine=1 / math.sqrt(1 + D * SIGMA**2),
    candidates=CANDIDATES,
    anchors=ANCHORS,
    kept=KEPT,
)
CHECKED = 100  # anchors


def one_class(seed: int, device: torch.device) -> Tensor:
    """Unit features (N, D) around a mean direction (cosine about 0.7); coordinate i has variance 1/i."""
    g = torch.Generator(device).manual_seed(seed)
    scale_D = torch.arange(1, D + 1, device=device).pow(-0.5)
    mean_D = normalize(torch.randn(D, generator=g, device=device), dim=0)
    return normalize(mean_D + torch.randn(N, D, generator=g, device=device) * scale_D / scale_D.norm(), dim=1)


def features(classes: int, device: torch.device) -> Features:
    """The features of so many classes, on the device."""
    return Features(
        z_ND=torch.cat([one_class(c, device) for c in range(classes)]),
        y_N=torch.arange(classes).repeat_interleave(N),
        index_N=torch.arange(classes * N),
        encoder="benchmark",
    )


def recipe(z_ND: Tensor, search: Callable[[Tensor], Tensor], repeats: int) -> tuple[Tensor, Tensor]:
    """Outliers and their squared distances as published: in each repeat one noise for all anchors, and every
    candidate searched.
    """
    g = torch.Generator(z_ND.device).manual_seed(0)
    boundary = search(z_ND).topk(BOUNDARY).indices
    kept = []
    for _ in range(repeats):
        noise_CD = SIGMA * torch.randn(CANDIDATES, D, generator=g, device=z_ND.device)
        b_AD = z_ND[boundary[torch.randperm(BOUNDARY)[:ANCHORS]]]
        v_ACD = normalize(b_AD[:, None] + noise_CD, dim=2)
        d_AK, best_AK = search(v_ACD.flatten(0, 1)).view(ANCHORS, CANDIDATES).topk(KEPT)
        kept.append((v_ACD.gather(1, best_AK[..., None].expand(-1, -1, D)).flatten(0, 1), d_AK.flatten()))
    v, d = zip(*kept, strict=True)
    return torch.cat(v), torch.cat(d)


def by_matmul(z_ND: Tensor) -> Callable[[Tensor], Tensor]:
    """Squared distance to the K-th nearest of z, by one product and a selection."""
    return lambda v_QD: 2 - 2 * (v_QD @ z_ND.T).kthvalue(N - K + 1).values


def by_faiss(z_ND: Tensor) -> Callable[[Tensor], Tensor]:
    """The same by faiss's exact flat L2 index."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(D)
    index.add(z_ND.numpy())
    return lambda v_QD: torch.from_numpy(index.search(v_QD.numpy(), K)[0][:, -1].copy())


def round_flops() -> float:
    """Operations of a round that no shared noise saves: products of all noises with all features, and an
    addition and a comparison for each candidate and feature.
    """
    return 2 * (ANCHORS + 2 * CANDIDATES / 2 + ANCHORS) * D * N + 2 * ANCHORS * CANDIDATES * N


def sampling(setting: Setting) -> Iterator[Row]:
    classes, per_class = setting.pick(cpu=(1, 10_000), cuda=(100, 1000), tiny=(2, 200))
    device, total, rounds = setting.device, classes * per_class, classes * per_class / (ANCHORS * KEPT)
    data = features(classes, device)
    SAMPLER(features(1, device), ANCHORS * KEPT, seed=1, space="benchmark")  # warm
    drawn: list[SampledVectors] = []
    ours = clock(lambda: drawn.append(SAMPLER(data, per_class, seed=0, space="benchmark")), device)
    z_ND, timed = data.z_ND[:N], setting.pick(cpu=2, cuda=10, tiny=1)
    searches = {"the published recipe, by products": by_matmul}
    if faiss and not setting.cuda:
        searches["the published recipe, by faiss"] = by_faiss
    floor = round_flops() * rounds / flops(device, torch.float32)
    what = f"{total:,} outliers of {classes:,} class{'es' if classes > 1 else ''}, width {D}"
    for name, make in searches.items():
        search = make(z_ND)
        if setting.cuda:
            recipe(z_ND, search, 1)  # warm
        theirs = clock(partial(recipe, z_ND, search, timed), device)
        yield Row(
            what=what,
            value=total / ours,
            unit="a second",
            reference=f"{name} ({timed} of its {rounds:,.0f} repeats timed)",
            ratio=theirs * rounds / timed / ours,
            floor=f"{round_flops() / (ANCHORS * KEPT) / 1e6:.0f} MFLOP for each, as one matrix product",
            share=floor / ours,
        )
    yield from checked(drawn[0], z_ND, classes)
    if setting.cuda or setting.tiny:
        few = features(setting.pick(1, 20, 1), device)
        profiled("sampling", lambda: SAMPLER(few, per_class, seed=0, space="benchmark"), setting)


def checked(drawn: SampledVectors, z_ND: Tensor, classes: int) -> Iterator[Row]:
    """Are the kept distances those of an exhaustive search? One anchor of each round of the first class, so
    that no noise is shared, against fresh noise around the same anchors and every distance.
    """
    search, g = by_matmul(z_ND), torch.Generator(z_ND.device).manual_seed(1)
    knn_RK = drawn.knn_M[::classes].view(-1, ANCHORS, KEPT)[:CHECKED, 0]
    plain = []
    for b_D in z_ND[drawn.anchor_M[::classes].view(-1, ANCHORS, KEPT)[:CHECKED, 0, 0]]:
        v_CD = normalize(b_D + SIGMA * torch.randn(CANDIDATES, D, generator=g, device=z_ND.device), dim=1)
        plain.append(search(v_CD).topk(KEPT).values.sqrt())
    every_RK = torch.stack(plain).cpu()
    error = math.hypot(*(d.mean(1).std() / math.sqrt(len(d)) for d in (knn_RK, every_RK)))
    yield Row(
        what=f"mean kept distance (standard error of the difference {error:.4f})",
        value=float(knn_RK.mean()),
        unit="",
        reference="that of an exhaustive search",
        ratio=float(knn_RK.mean() / every_RK.mean()),
    )


LINES = {"sampling": sampling}

if __name__ == "__main__":
    alone(LINES)
