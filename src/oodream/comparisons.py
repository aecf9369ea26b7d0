"""Named comparisons: arms by name, each with the options in which it differs from a preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .core.options import Option

__all__ = ["COMPARISONS", "Comparison"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms by name, each with the options in which it differs from the preset: `preset` for its own images,
    `folder` for a user's.
    """

    preset: str
    folder: str
    arms: dict[str, dict[str, Any]]
    about: str


def published_oal() -> dict[str, Any]:
    """OAL's losses and weights as its code has them (HengGao12/OAL at 16487e8): latents meet the classifier
    in no way but these.
    """
    return {
        "loss": ["cross_entropy", "kd", "club_joint@vectors", "club_joint@latents"],
        "loss_options": {
            "kd.logit": 4.0, "kd.feature": 8.0, "kd.joint": True, "club_joint@vectors.of": "vectors",
            "club_joint@vectors.weight": 0.1, "club_joint@latents.weight": 0.2,
            "club_joint@latents.reduction": "column", "club_joint@latents.deep": True,
        },
    }  # fmt: skip


DREAM_ARM: dict[str, Any] = {
    "decode": {"output": "images", "steps": 8},
    "sample": {"per_class": 150},
    "reconstruct": {"detail": False, "frac": 0.25},
    "regularize": {"loss": ["energy_logistic"], "outlier_aug_prob": 0.0},
}


# What the preset "fashion-oal" has otherwise than the demo.
OAL_ARM: dict[str, Any] = {
    "sample": {"per_class": 15},
    "decode": {"output": "latents", "steps": 4},
    "reconstruct": {"detail": False, "frac": 0.0},
    "regularize": {"loss": ["energy_logistic", "micl", "kd"], "outlier_aug_prob": 0.8},
}


def overlaid(arm: dict[str, Any], **regularize: Any) -> dict[str, Any]:
    """An arm with other options of the regularization."""
    return arm | {"regularize": arm["regularize"] | regularize}


FROM_NOISE: dict[str, Any] = {
    "decode": {"decoder": "stable"},
    "reconstruct": {"twins": False},
}
"""What is drawn from noise alone, so that no known image has a twin."""


def sampled(name: str, **options: Option) -> dict[str, Any]:
    """An arm with another sampler, whose vectors are drawn from noise."""
    return {"sample": {"sampler": name, "options": options}} | FROM_NOISE


def decoded(name: str, options: dict[str, Option], **more: Any) -> dict[str, Any]:
    """An arm with another decoder, its options, and others of the section."""
    return {"decode": {"decoder": name, "options": options, **more}, "reconstruct": {"twins": False}}


CLASS_MEANS = sampled("gaussian", spread=0.1)
"""Vectors beside the classes' own, for a decoder that leads away from them."""


def in_place(outliers: str, **regularize: Any) -> dict[str, Any]:
    """An arm with what stands in place of imagined outliers, shown as it is."""
    return {"regularize": {"outliers": outliers, "outlier_aug_prob": 0.0, **regularize}}


def virtual(*loss: str) -> dict[str, Any]:
    """An arm whose loss makes its outliers itself, or needs none."""
    return {"regularize": {"loss": [*loss]}}


COMPARISONS = {
    "demo": Comparison(
        preset="demo",
        folder="folder",
        about="DREAM-OOD and OAL as they ship, and varied known images in place of imagined outliers",
        arms={
            "dream-ood": {},
            "known images, varied": {"regularize": {"outliers": "known"}},
            "oal": OAL_ARM,
        },
    ),
    "headroom": Comparison(
        preset="doodles",
        folder="folder",
        about="what imagination can win: imagined outliers, varied known images, real other things",
        arms={
            "imagined": {},
            "imagined, as drawn": {"regularize": {"outlier_aug_prob": 0.0}},
            "known images, varied": {"regularize": {"outliers": "known"}},
            "real things": {"regularize": {"outliers": "real", "real": "world", "outlier_aug_prob": 0.0}},
        },
    ),
    "study": Comparison(
        preset="doodles",
        folder="folder-edited",
        about="ways to imagine, what imagines nothing, and real other things; for cifar10-6v4, too",
        arms={
            "imagined": {},
            "imagined, as drawn": {"regularize": {"outlier_aug_prob": 0.0}},
            "with names": {"regularize": {"loss": ["extra_class"], "loss_options": {"named": True}}},
            "without names": {"regularize": {"loss": ["energy_logistic"]}},
            "real things": in_place("real", real="world"),
            "without twins": {"reconstruct": {"twins": False}},
            "from noise": FROM_NOISE,
            "known, varied": {"regularize": {"outliers": "known"}},
            "known, mixed": in_place("known", known_transform="mixed"),
            "vos": virtual("vos"),
            "around the classes": sampled("knn", cosine=0.87),
            "known, attributed": in_place("known", known_transform="attributed"),
            "npos": virtual("npos"),
            "far from the classes": sampled("knn", cosine=0.2),
            "class Gaussians": sampled("gaussian", spread=3.0),
            "between classes": sampled("between"),
            "across the boundary": sampled("boundary_walk"),
            "known, cut": in_place("known", known_transform="cut"),
            "known, shuffled": in_place("known", known_transform="shuffled"),
            "known, edited": decoded("edited", {}, guidance=10.0, steps=16),
            "away by energy": CLASS_MEANS | decoded("guided", {"by": "energy"}, steps=16),
            "away by features": CLASS_MEANS
            | decoded("guided", {"by": "feature", "strength": 1.0, "smooth": 0.001}, steps=16),
            "known, structured": in_place("known", known_transform="structured"),
            "noise on the text": CLASS_MEANS | decoded("noisy_text", {}),
            "logit norm": virtual("logit_norm"),
            "fever": virtual("vos", "fever"),
            "ascood": {"train": {"backbone": "resnet8-z"}}
            | in_place("known", known_transform="attributed", loss=["outlier_exposure"]),
        },
    ),
    "dream-id": Comparison(
        preset="fashion-id",
        folder="folder-id",
        about="accuracy under shift by imagined inliers, other ways to draw some, and augmented known images",
        arms={
            "imagined": {},
            "by name": {"sample": {"sampler": "gaussian", "options": {"kind": "inlier", "spread": 0.1}}},
            "redrawn": {"decode": {"decoder": "image_to_image", "options": {"strength": 0.5}}},
            **{
                f"known, {name}": {"regularize": {"outliers": "known", "known_transform": name}}
                for name in ("varied", "augmix", "randaugment", "autoaugment", "structured")
            },
        },
    ),
    "oal": Comparison(
        preset="fashion-oal",
        folder="folder",
        about="OAL and its parts, numbers of outliers, and DREAM-OOD",
        arms={
            "oal": OAL_ARM,
            "known, varied": overlaid(OAL_ARM, outliers="known", loss=["energy_logistic", "kd"]),
            "dream-ood": DREAM_ARM,
            "dream-ood, varied": overlaid(DREAM_ARM, outlier_aug_prob=0.5),
            "dream-ood, varied, 120 outliers": overlaid(DREAM_ARM, outlier_aug_prob=0.5, max_outliers=120),
            "dream-ood, 120 outliers": overlaid(DREAM_ARM, max_outliers=120),
            "oal, not varied": overlaid(OAL_ARM, outlier_aug_prob=0.0),
            "oal without micl": overlaid(OAL_ARM, loss=["energy_logistic", "kd"]),
            "oal without kd": overlaid(OAL_ARM, loss=["energy_logistic", "micl"]),
            "oal, energy alone": overlaid(OAL_ARM, loss=["energy_logistic"]),
            "oal with club": overlaid(OAL_ARM, loss=["energy_logistic", "club", "kd"]),
            "oal with club_joint": overlaid(OAL_ARM, loss=["energy_logistic", "club_joint", "kd"]),
            "oal as published": overlaid(OAL_ARM, **published_oal()) | {"latents": {"adapter": "none"}},
            "ce + kd": overlaid(OAL_ARM, loss=["cross_entropy", "kd"]),
            **{
                f"oal, {n} outliers": overlaid(OAL_ARM, max_outliers=n) | {"sample": {"per_class": 375}}
                for n in (50, 150, 300, 1000, 3000)
            },
            "oal by projector": OAL_ARM | {"latents": {"adapter": "projector"}},
            "oal by stem": OAL_ARM | {"latents": {"adapter": "stem"}},
        },
    ),
}
