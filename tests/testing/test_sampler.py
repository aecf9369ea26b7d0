"""The public check for samplers: every registered one passes, and every broken rule is caught."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from oodream.config import SampleConfig
from oodream.core.registry import names
from oodream.core.seeding import derive, generator
from oodream.core.types import ClassBook, SampledVectors
from oodream.synthesis.sample import sample
from oodream.testing.sampler import check_sampler, random_features


@pytest.mark.parametrize("name", names("samplers"))
def test_registered_samplers_keep_the_rules(name):
    check_sampler(name)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "inlier", "k": 5},
        {"select": "random", "count_self": True},
        {"shared_noise": True, "images": 3, "candidates": 9},
        {"kept": 1, "anchors": 2, "boundary": 1.0},
    ],
)
def test_their_options_keep_them_too(options):
    check_sampler("knn", **options)


class Noise:
    """A sampler that keeps the rules, for others to break them one by one: noise around random features."""

    kind = "outlier"

    def __init__(self, spread: float = 0.3) -> None:
        self.spread = spread

    def check(self, y_N, names):
        pass

    def __call__(self, features, per_class, seed, space):
        parts = []
        for c in features.y_N.unique().tolist():
            rows, g = (features.y_N == c).nonzero()[:, 0], generator(seed, "noise", c)
            anchor = rows[torch.randint(len(rows), (per_class,), generator=g)]
            b = features.z_ND[anchor]
            z = normalize(b + self.spread * torch.randn(b.shape, generator=g), dim=1)
            parts.append((z, torch.full((per_class,), c), anchor, (z - b).norm(dim=1)))
        z, y, anchor, distance = (torch.stack(x, 1).flatten(0, 1) for x in zip(*parts, strict=True))
        seeds = torch.tensor([derive(seed, "image", m) for m in range(len(y))])
        return SampledVectors(
            z_MD=z, y_M=y, anchor_M=anchor, knn_M=distance, seed_M=seeds, kind=self.kind, space=space
        )


def test_a_sampler_of_ones_own_keeps_the_rules():
    check_sampler(Noise)
    check_sampler(f"{__name__}:Noise", spread=0.1)


class Changed(Noise):
    """The same vectors with something changed."""

    def __call__(self, features, per_class, seed, space):
        vectors = super().__call__(features, per_class, seed, space)
        return replace(vectors, **self.change(vectors, features))


class OneTooFew(Changed):
    def change(self, v, features):
        return {name: getattr(v, name)[:-1] for name in ("z_MD", "y_M", "anchor_M", "knn_M", "seed_M")}


class InBlocks(Changed):
    def change(self, v, features):
        order = v.y_M.argsort(stable=True)
        return {name: getattr(v, name)[order] for name in ("z_MD", "y_M", "anchor_M", "knn_M", "seed_M")}


class LongVectors(Changed):
    def change(self, v, features):
        return {"z_MD": v.z_MD * 1.01}


class NotANumber(Changed):
    def change(self, v, features):
        return {"z_MD": v.z_MD.index_fill(0, torch.tensor(4), torch.nan)}


class OtherAnchors(Changed):
    def change(self, v, features):
        return {"anchor_M": v.anchor_M.roll(1)}


class AnchorsAmongImages(Changed):
    """Rows of the images, where rows of the features are asked for."""

    def change(self, v, features):
        return {"anchor_M": features.index_N[v.anchor_M]}


class OneSeed(Changed):
    def change(self, v, features):
        return {"seed_M": v.seed_M * 0 + v.seed_M[0]}


class SeedsWithoutSeed(Changed):
    def change(self, v, features):
        return {"seed_M": torch.arange(len(v))}


class OwnSpace(Changed):
    def change(self, v, features):
        return {"space": "mine"}


class OtherKind(Changed):
    def change(self, v, features):
        return {"kind": "inlier"}


class OutliersAsInliers(Noise):
    kind = "inlier"


class InliersAsOutliers(Changed):
    """Vectors that lie close to their classes' means."""

    def change(self, v, features):
        means = torch.stack([features.z_ND[features.y_N == c].mean(0) for c in range(3)])
        return {"z_MD": normalize(v.z_MD + 9 * normalize(means, dim=1)[v.y_M], dim=1)}


class NoKind(Noise):
    kind = "strange"


class SameForEverySeed(Noise):
    def __call__(self, features, per_class, seed, space):
        v = super().__call__(features, per_class, 0, space)
        return replace(v, seed_M=torch.tensor([derive(seed, m) for m in range(len(v))]))


class GlobalNumbers(Noise):
    def __call__(self, features, per_class, seed, space):
        return super().__call__(features, per_class, int(torch.randint(1000, ())), space)


class SeedsTheWorld(Noise):
    def __call__(self, features, per_class, seed, space):
        torch.random.default_generator.manual_seed(seed)
        return super().__call__(features, per_class, seed, space)


class Scribbler(Noise):
    def __call__(self, features, per_class, seed, space):
        features.z_ND[0] = features.z_ND[1]
        return super().__call__(features, per_class, seed, space)


class ByRow(Noise):
    """Each feature's noise depends on its row among all."""

    def __call__(self, features, per_class, seed, space):
        v = super().__call__(features, per_class, seed, space)
        noise = torch.stack(
            [torch.randn(v.z_MD.shape[1], generator=generator(seed, int(a))) for a in v.anchor_M]
        )
        return replace(v, z_MD=normalize(v.z_MD + self.spread * noise, dim=1))


class NeedsTwo(Noise):
    def check(self, y_N, names):
        if y_N.bincount().min() < 2:
            raise ValueError(self.message)

    message = "A class is too small."


class NeedsHundred(Noise):
    def check(self, y_N, names):
        raise ValueError("Class 'class 0' is too small: it takes a hundred images.")


class FailsLater(Noise):
    """What `check` lets pass fails afterwards."""

    def __call__(self, features, per_class, seed, space):
        if features.y_N.bincount().min() < 2:
            raise IndexError("out of range")
        return super().__call__(features, per_class, seed, space)


class NoCheck(Noise):
    check = None


class Tuple(Noise):
    def __call__(self, features, per_class, seed, space):
        v = super().__call__(features, per_class, seed, space)
        return v.z_MD, v.y_M


class FarAnchors(Changed):
    def change(self, v, features):
        return {"anchor_M": v.anchor_M + len(features.y_N)}


class NumbersAsAnchors(Changed):
    def change(self, v, features):
        return {"anchor_M": v.anchor_M.tolist()}


class ShortLabels(Changed):
    def change(self, v, features):
        return {"y_M": v.y_M[:-1]}


class ShortNames(Changed):
    def change(self, v, features):
        return {"name_M": v.y_M[:-1]}


class StrangeClass(Changed):
    def change(self, v, features):
        return {"y_M": v.y_M + 7}


BROKEN_OUTPUT = [
    (OneTooFew, "z_MD is float32 of shape"),
    (InBlocks, "the classes take turns"),
    (LongVectors, "unit norm; 21 of 21 have not"),
    (NotANumber, "The vectors are finite"),
    (OtherAnchors, "of its vector's class"),
    (OneSeed, "a seed of its own"),
    (OwnSpace, "space is the one"),
    (OtherKind, "kind is the sampler's"),
    (NoKind, "'outlier' or 'inlier', not 'strange'"),
    (NoCheck, r"has a method check, which is called as check\(y_N, names\)"),
    (Tuple, "returns SampledVectors, not tuple"),
    (FarAnchors, "anchor_M holds rows of the features, of which there are 120"),
    (NumbersAsAnchors, "anchor_M is a tensor on the CPU"),
    (ShortLabels, "the classes take turns"),
    (StrangeClass, "the classes take turns"),
    (ShortNames, "holds the number of a word"),
]
"""what a run finds, too"""


@pytest.mark.parametrize(("broken", "rule"), BROKEN_OUTPUT)
def test_what_a_run_cannot_use_is_refused_with_the_samplers_name(broken, rule):
    features = random_features()
    names = ("a", "b", "c")
    book = ClassBook(names=names, prompts=names, tokens_CD=torch.ones(3, features.z_ND.shape[1]), space="x")
    config = SampleConfig(sampler=f"{__name__}:{broken.__name__}", per_class=7)
    with pytest.raises(ValueError, match=f"^The sampler '{__name__}:{broken.__name__}': .*({rule})"):
        sample(features, book, config, seed=3)


def test_what_a_sampler_raises_has_its_name_and_place():
    names = ("a", "b", "c")
    book = ClassBook(names=names, prompts=names, tokens_CD=torch.ones(3, 16), space="x")
    config = SampleConfig(sampler=f"{__name__}:FailsLater", per_class=7)
    sentence = r"^The sampler '.*:FailsLater': IndexError: out of range \(.*test_sampler\.py, line \d+\)\.$"
    with pytest.raises(ValueError, match=sentence):
        sample(random_features((40, 1, 50)), book, config, seed=3)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        *BROKEN_OUTPUT,
        (OutliersAsInliers, "Inliers lie within their classes, .* 90% of its features reach, 0.8"),
        (InliersAsOutliers, "Outliers lie out of their classes, .* here at 1.00, and the features at 0.90"),
        (AnchorsAmongImages, "anchor_M holds rows of the features|of its vector's class"),
        (SeedsWithoutSeed, "gives the images other seeds"),
        (SameForEverySeed, "Another seed gives other vectors"),
        (GlobalNumbers, "generators of its own"),
        (SeedsTheWorld, "generators of its own"),
        (Scribbler, "leave the tensors"),
        (ByRow, "where its images stand"),
        (NeedsTwo, "names the class that is too small"),
        (NeedsHundred, "raises ValueError .*a hundred images"),
        (FailsLater, r"raises IndexError \(out of range\)"),
    ],
)
def test_what_breaks_a_rule_is_caught(broken, rule):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*({rule})"):
        check_sampler(broken)
