"""DREAM-OOD's sampler on one class of its ImageNet-100 setting, against the recipe as published in the same
run.

1000 unit features of width 768; 10,000 outliers: k = 300, 200 boundary points, sigma 0.03, 100 repeats of 50
anchors with 1500 candidates each, of which 2 are kept. The sampler runs whole. A repeat of the recipe
measures the k-th neighbour of all 75,000 candidates; repeats are alike, so a few are timed and scaled to 100.
faiss is timed, too, where it is installed (pip install faiss-cpu).

python benchmarks/sample.py
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from oodream.core.types import Features, SampledVectors
from oodream.synthesis.samplers.knn import KNN

try:
    import faiss
except ModuleNotFoundError:
    faiss = None

N, D, K, BOUNDARY, SIGMA, REPEATS, ANCHORS, CANDIDATES, KEPT = 1000, 768, 300, 200, 0.03, 100, 50, 1500, 2
TIMED = 2  # repeats of the reference


def one_class(seed: int = 0) -> Tensor:
    """Unit features (N, D) around a mean direction (cosine about 0.7); coordinate i has variance 1/i."""
    g = torch.Generator().manual_seed(seed)
    scale_D = torch.arange(1, D + 1).pow(-0.5)
    mean_D = normalize(torch.randn(D, generator=g), dim=0)
    return normalize(mean_D + torch.randn(N, D, generator=g) * scale_D / scale_D.norm(), dim=1)


def recipe(z_ND: Tensor, search: Callable[[Tensor], Tensor], repeats: int) -> tuple[Tensor, Tensor]:
    """Outliers and their squared distances as published: in each repeat one noise for all anchors, and every
    candidate searched.
    """
    g = torch.Generator().manual_seed(0)
    boundary = search(z_ND).topk(BOUNDARY).indices
    kept = []
    for _ in range(repeats):
        noise_CD = SIGMA * torch.randn(CANDIDATES, D, generator=g)
        b_AD = z_ND[boundary[torch.randperm(BOUNDARY, generator=g)[:ANCHORS]]]
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


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall clock and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    z_ND, total = one_class(), REPEATS * ANCHORS * KEPT
    features = Features(
        z_ND=z_ND, y_N=torch.zeros(N, dtype=torch.long), index_N=torch.arange(N), encoder="benchmark"
    )
    cosine = 1 / math.sqrt(1 + D * SIGMA**2)
    sampler = KNN(
        k=K, boundary=BOUNDARY / N, cosine=cosine, candidates=CANDIDATES, anchors=ANCHORS, kept=KEPT
    )
    print(f"{total:,} outliers of one class, {torch.get_num_threads()} threads")

    drawn: list[SampledVectors] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = clock(lambda: drawn.append(sampler(features, total, seed=0, space="benchmark")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"oodream: {ours[0]:.1f} s ({ours[1]:.1f} s of CPU), whole; peak memory {peak / 2**20:.2f} GB, "
        f"{before / 2**20:.2f} before"
    )

    searches = {
        "plain matmul and kthvalue": by_matmul,
        **({f"faiss {faiss.__version__} flat L2": by_faiss} if faiss else {}),
    }
    for name, make in searches.items():
        search = make(z_ND)
        wall, cpu = (t * REPEATS / TIMED for t in clock(partial(recipe, z_ND, search, TIMED)))
        print(
            f"{name}: {wall:.0f} s ({cpu:.0f} s of CPU), {TIMED} of {REPEATS} repeats timed and scaled: "
            f"oodream is {wall / ours[0]:.0f} times as fast ({cpu / ours[1]:.0f} times by CPU)"
        )

    # Are the kept distances those of an exhaustive search? One anchor of each repeat, so that no noise is
    # shared, against fresh noise around the same anchors and every distance.
    search, g = by_matmul(z_ND), torch.Generator().manual_seed(1)
    ours_AK = drawn[0].knn_M.view(REPEATS, ANCHORS, KEPT)[:, 0]
    plain = []
    for b_D in z_ND[drawn[0].anchor_M.view(REPEATS, ANCHORS, KEPT)[:, 0, 0]]:
        v_CD = normalize(b_D + SIGMA * torch.randn(CANDIDATES, D, generator=g), dim=1)
        plain.append(search(v_CD).topk(KEPT).values.sqrt())
    for name, d_AK in (("oodream", ours_AK), ("every distance", torch.stack(plain))):
        error = d_AK.mean(1).std() / math.sqrt(REPEATS)
        print(
            f"kept distance around {REPEATS} of the anchors, {name}: {d_AK.mean():.4f} +- {error:.4f}, "
            f"spread {d_AK.std():.4f}"
        )


if __name__ == "__main__":
    main()
