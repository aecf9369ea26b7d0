"""The kNN sampler against a plain numpy loop, a known mixture, and the geometry it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from oodream.core.registry import make
from oodream.core.seeding import derive, generator
from oodream.functional.knn import kth_distance
from oodream.synthesis.samplers.knn import KNN
from tests.helpers.features import features


def by_hand(f, sampler: KNN, c: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same class, one vector at a time, in numpy float64."""
    rows = np.flatnonzero(f.y_N.numpy() == c)
    z = f.z_ND.numpy()[rows].astype(np.float64)
    k = sampler.neighbour(len(rows))
    sign = 1 if sampler.kind == "outlier" else -1
    own = []
    for i in range(len(z)):
        others = sorted(np.linalg.norm(z[i] - z[j]) for j in range(len(z)) if j != i)
        own.append(others[k - 1])
    order = np.argsort(np.float32([-sign * d for d in own]), kind="stable")[
        : math.ceil(sampler.boundary * len(z))
    ]
    vectors, anchors, distances, turn = [], [], [], 0
    while len(vectors) < count:
        g = generator(seed, sampler.kind, c, turn)
        picked = order[torch.randperm(len(order), generator=g)[: sampler.anchors].numpy()]
        half = math.ceil(sampler.candidates / 2)
        p = torch.randn(half, z.shape[1], generator=g).numpy()
        q = torch.randn(half + len(picked) - 1, z.shape[1], generator=g).numpy()
        for i, b in enumerate(picked):
            noise = [(p[h] + side * q[i + h]) / math.sqrt(2) for side in (1, -1) for h in range(half)]
            found = []
            for j in range(sampler.candidates):
                v = z[b] + sampler.sigma(z.shape[1]) * noise[j]
                v = v / np.linalg.norm(v)
                found.append((sorted(np.linalg.norm(v - q) for q in z)[k - 1], v))
            found.sort(key=lambda pair: -sign * pair[0])
            for d, v in found[: sampler.kept]:
                vectors.append(v)
                anchors.append(rows[b])
                distances.append(d)
        turn += 1
    return np.array(vectors[:count]), np.array(anchors[:count]), np.array(distances[:count])


@pytest.mark.parametrize("kind", ["outlier", "inlier"])
@pytest.mark.parametrize("kept", [1, 2, 5])
@pytest.mark.parametrize(("k", "candidates", "anchors"), [(5, 12, 4), (1, 7, 3), (23, 5, 40)])
def test_equals_a_plain_loop(kind, kept, k, candidates, anchors):
    f = features(n=24)
    sampler = KNN(kind=kind, k=k, boundary=0.3, cosine=0.8, candidates=candidates, anchors=anchors, kept=kept)
    drawn = sampler(f, 10, seed=3, space="s")
    for c in range(3):
        z, anchor, distance = by_hand(f, sampler, c, 10, seed=3)
        mine = drawn.y_M == c
        np.testing.assert_array_equal(drawn.anchor_M[mine].numpy(), anchor)
        np.testing.assert_allclose(drawn.z_MD[mine].numpy(), z, atol=1e-5)
        np.testing.assert_allclose(drawn.knn_M[mine].numpy(), distance, atol=1e-5)


@pytest.mark.parametrize("kind", ["outlier", "inlier"])
def test_same_distribution_as_with_noise_of_its_own(kind):
    """Distances and cosines of kept copies against the plain recipe: fresh noise, every distance, topk.

    Of each round only the last anchor is looked at: the test supposes independent draws, and anchors of a
    round share noise.
    """
    f, rounds = features(n=150, classes=1, width=48, spread=0.8), 1500
    sampler = KNN(kind=kind, k=30, boundary=1.0, cosine=0.77, candidates=40, anchors=4, kept=1)
    drawn = sampler(f, 4 * rounds, 0, "s")
    z, b, distance = drawn.z_MD[3::4], f.z_ND[drawn.anchor_M[3::4]], drawn.knn_M[3::4]
    noise = torch.randn(rounds, 40, 48, generator=torch.Generator().manual_seed(5))
    v = normalize(b[:, None] + sampler.sigma(48) * noise, dim=2)
    d = kth_distance(v.flatten(0, 1), f.z_ND, 30).view(rounds, 40)
    best = (d if kind == "outlier" else -d).argmax(1)
    row = torch.arange(rounds)
    assert ks_2samp(distance, d[row, best]).pvalue > 1e-3
    assert ks_2samp((z * b).sum(1), (v[row, best] * b).sum(1)).pvalue > 1e-3
    # The gate does tell: against copies before selection it closes.
    assert ks_2samp(distance, d[row, 0]).pvalue < 1e-6


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation returned."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


def test_memory_is_a_few_blocks():
    """Published counts: 75,000 candidates of width 768, which would be 230 MB, and 300 MB of distances."""
    f = features(n=1000, classes=1, width=768)
    with Largest() as seen:
        KNN(k=300, cosine=0.769, candidates=1500, anchors=50, kept=2)(f, 200, 0, "s")
    assert seen.bytes < 2**23


def test_the_number_of_threads_changes_nothing():
    f, threads = features(n=300, classes=1, width=64), torch.get_num_threads()
    try:
        drawn = []
        for n in (1, 2):
            torch.set_num_threads(n)
            drawn.append(KNN(k=60)(f, 120, 3, "s"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn[0].z_MD, drawn[1].z_MD)
    torch.testing.assert_close(drawn[0].knn_M, drawn[1].knn_M, atol=1e-6, rtol=0)


def percentile(sampler: KNN) -> float:
    """Where the kept candidates stand among fresh candidates of their own anchor, by density of a known
    Gaussian mixture.
    """
    f = features(n=200, width=8, spread=0.6)
    drawn = sampler(f, 60, seed=0, space="s")
    g = torch.Generator().manual_seed(9)
    centre = torch.stack([normalize(f.z_ND[f.y_N == c].mean(0), dim=0) for c in range(3)])
    ranks = []
    for z, y, a in zip(drawn.z_MD, drawn.y_M, drawn.anchor_M, strict=True):
        noise = sampler.sigma(8) * torch.randn(400, 8, generator=g)
        rivals = normalize(f.z_ND[a] + noise, dim=1)
        ranks.append((rivals @ centre[y] > z @ centre[y]).float().mean())
    return torch.stack(ranks).mean().item()


def test_inliers_lie_around_all_features_and_near_them_unless_asked_otherwise():
    outlier, inlier, asked = KNN(), KNN(kind="inlier"), KNN(kind="inlier", cosine=0.8, boundary=0.5)
    assert [(s.boundary, s.cosine) for s in (outlier, inlier, asked)] == [(0.2, 0.2), (1.0, 0.96), (0.5, 0.8)]


def test_kept_candidates_are_the_unlikely_ones():
    """The gate the published selection fails: its kept candidates stand at 0.5 among their rivals."""
    options = {"k": 40, "cosine": 0.87, "candidates": 300, "kept": 2}
    assert percentile(KNN(**options)) > 0.9
    assert 0.4 < percentile(KNN(**options, select="random")) < 0.6


def test_inliers_are_the_likely_ones():
    f = features(n=100, width=8, spread=0.6)
    options = {"k": 20, "cosine": 0.95, "candidates": 100}
    inlier, outlier = (KNN(kind=kind, **options)(f, 40, 0, "s") for kind in ("inlier", "outlier"))
    assert inlier.knn_M.mean() < 0.8 * outlier.knn_M.mean()
    assert inlier.kind == "inlier"


@pytest.mark.parametrize("cosine", [0.46, 0.77, 0.87, 0.96])
@pytest.mark.parametrize("width", [128, 768])
def test_cosine_to_the_anchor_is_as_asked_at_any_width(cosine, width):
    f = features(n=30, width=width)
    drawn = KNN(k=5, cosine=cosine, candidates=20, kept=20, select="random")(f, 200, 0, "s")
    seen = (drawn.z_MD * f.z_ND[drawn.anchor_M]).sum(1).mean().item()
    assert seen == pytest.approx(cosine, abs=0.01)


def test_the_papers_sigmas_in_cosines():
    assert KNN(cosine=0.769).sigma(768) == pytest.approx(0.03, rel=0.01)
    assert KNN(cosine=0.458).sigma(768) == pytest.approx(0.07, rel=0.01)


def test_the_seed_of_an_image_is_one_of_kind_and_row():
    assert KNN(k=5)(features(), 20, 7, "s").seed_M[4] == derive(7, "outlier", "image", 4)


def test_more_vectors_begin_with_the_same_ones():
    f = features()
    few, many = (KNN(k=5)(f, n, 7, "s") for n in (10, 30))
    assert torch.equal(few.z_MD, many.z_MD[: len(few)])


def test_too_small_a_class_is_named():
    with pytest.raises(ValueError, match=r"'0' has 24 images; the 24-th neighbour needs 25.* k to 23\.$"):
        KNN(k=24)(features(n=24), 4, 0, "s")
    with pytest.raises(
        ValueError, match=r"^Class 'b' has 1 image, and no neighbour of it\. Give it more images"
    ):
        KNN().check(torch.tensor([0, 0, 0, 1]), ["a", "b"])


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("kind", ["x", 1]),
        ("k", [3.5, -1, "many", True]),
        ("boundary", [-0.1, 1.5, "all"]),
        ("cosine", [1.0, -0.5, "half"]),
        ("candidates", [0, 2.5]),
        ("anchors", [0, 1.5]),
        ("kept", [0, 501, 2.5]),
        ("select", ["best"]),
        ("count_self", [1, "yes"]),
        ("shared_noise", [0]),
        ("images", [0, -3, 1.5]),
    ],
)
def test_bad_options_are_refused_by_name(option, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"sampler 'knn': {option} (must|cannot) be"):
            make("samplers", "knn", **{option: value})


def test_a_feature_that_counts_itself_has_neighbour_k_minus_one():
    """Boundary and candidates' distances: only the first are about features, so only they change."""
    f = features()
    own = make("samplers", "knn", k=8, count_self=True, select="random", boundary=0.1)(f, 6, 0, "s")
    other = make("samplers", "knn", k=7, select="random", boundary=0.1)(f, 6, 0, "s")
    assert torch.equal(own.z_MD, other.z_MD)
    assert torch.equal(own.anchor_M, other.anchor_M)
    assert (own.knn_M > other.knn_M).all()


@pytest.mark.parametrize("select", ["distance", "random"])
def test_shared_noise_is_one_noise_for_all_anchors(select):
    f, sampler = (
        features(),
        make("samplers", "knn", k=7, candidates=9, anchors=4, kept=9, shared_noise=True, select=select),
    )
    o = sampler(f, 4 * 9, 0, "s")
    c0 = o.y_M == 0
    sigma, z, b = sampler.sigma(16), o.z_MD[c0].view(4, 9, 16), f.z_ND[o.anchor_M[c0]].view(4, 9, 16)
    # v = (b + e) / |b + e|: with e at hand for one anchor, the other anchors' vectors follow.
    g = generator(0, "outlier", 0, 0)
    torch.randperm(12, generator=g)
    e = torch.randn(9, 16, generator=g) * sigma
    for a in range(4):
        expected = normalize(b[a, 0] + e, dim=1)
        nearest = torch.cdist(z[a], expected).min(1)
        assert nearest.values.max() < 1e-5
        assert sorted(nearest.indices.tolist()) == list(range(9))


def test_several_images_of_every_vector():
    f = features()
    one, four = (make("samplers", "knn", k=7, images=n)(f, 12, 0, "s") for n in (1, 4))
    mine = four.y_M == 1
    assert len(four.z_MD[mine].unique(dim=0)) == 3
    assert torch.equal(four.z_MD[mine][::4], one.z_MD[one.y_M == 1][:3])
    assert len(four.seed_M.unique()) == len(four.seed_M)
    assert len(make("samplers", "knn", k=7, images=5)(f, 12, 0, "s").z_MD) == 36
