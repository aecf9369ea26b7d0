"""Presets are runnable configurations, and those named after DREAM-OOD hold the constants of its published
code.
"""

from __future__ import annotations

import json

import pytest
from torch import nn

from oodream.cli.main import main
from oodream.comparisons import COMPARISONS
from oodream.config import Config
from oodream.core import registry
from oodream.core.options import overlay, to_json
from oodream.core.registry import options_by_name
from oodream.core.types import Sizes
from oodream.models.external import ADAPTERS
from oodream.models.resnet import BACKBONES
from oodream.presets import PRESETS
from oodream.synthesis.schedulers import SCHEDULERS
from oodream.training.train import make_loss

DREAM = {name: preset.config for name, preset in PRESETS.items() if name.endswith("-dream")}
# scripts/get_embed_*.py: --gaussian_mag_ood_det, --ood_det_select over the images of a class that are used.
NOISE = {
    "cifar10-dream": (0.07, 50 / 500),
    "cifar100-dream": (0.07, 50 / 500),
    "imagenet100-dream": (0.03, 200 / 1000),
}
# scripts/pretrain_*.py and scripts/train_*.py: epochs, rate, batch; --energy_weight; width of the images.
TRAINING = {
    "cifar10-dream": (200, 0.1, 256),
    "cifar100-dream": (200, 0.1, 256),
    "imagenet100-dream": (100, 0.1, 160),
}
BETA = {"cifar10-dream": 2.5, "cifar100-dream": 2.5, "imagenet100-dream": 1.0}
SIZE = {"cifar10-dream": 32, "cifar100-dream": 32, "imagenet100-dream": 224}


@pytest.mark.parametrize("name", PRESETS)
def test_every_part_exists(name):
    config = PRESETS[name].config
    registry.make("samplers", config.sample.sampler, **config.sample.options)
    make_loss(config.regularize.loss, config.regularize.loss_options)
    assert config.align.backbone in BACKBONES
    family, _, other = config.train.backbone.partition(":")
    assert family in ADAPTERS if other else family in BACKBONES
    assert config.decode.scheduler in SCHEDULERS
    assert overlay(Config(), to_json(config)) == config


@pytest.mark.parametrize("name", PRESETS)
def test_the_command_line_knows_it(name, capsys, no_preview):
    if own := PRESETS[name].config.data:
        assert main(["run", "--preset", name, "--data", own, "--dry-run"]) == 0
        assert PRESETS[name].about in capsys.readouterr().out
    assert main(["run", "--preset", name, "--data", "photos", "--dry-run"]) == 0
    assert f"the images of photos, with the preset {name}." in capsys.readouterr().out


def test_imagenet_must_be_brought_along(capsys):
    assert main(["run", "--preset", "imagenet100-dream", "--dry-run"]) == 2
    assert "Give --data FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", DREAM)
def test_sampler_has_the_published_constants(name):
    config = DREAM[name].sample
    sampler = registry.make("samplers", config.sampler, **config.options)
    sigma, boundary = NOISE[name]
    assert sampler.sigma(768) == pytest.approx(sigma, rel=5e-4)
    assert sampler.boundary == pytest.approx(boundary)
    assert (sampler.k, sampler.candidates, sampler.anchors, sampler.kept) == (300, 1500, 50, 2)
    assert (sampler.kind, sampler.select, config.per_class) == ("outlier", "distance", 1000)


SWITCHES = """
--sample.options select=random count_self=true shared_noise=true images=4
--align.augmented-features --regularize.loss-options phi=network --evaluate.fpr95-nearest
--evaluate.ood-ratio 0.2
"""


@pytest.mark.parametrize("name", DREAM)
def test_what_the_published_code_does_is_a_flag_away(name, capsys, no_preview):
    assert main(["run", "--preset", name, "--data", "photos", *SWITCHES.split(), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    config = overlay(Config(), json.loads(printed[: printed.rindex("}") + 1]))
    options = config.sample.options
    switches = [options[key] for key in ("select", "count_self", "shared_noise", "images")]
    assert switches == ["random", True, True, 4]
    assert options["k"] == 300, "the preset's other options stay"
    evaluate = config.evaluate
    assert (config.align.augmented_features, evaluate.fpr95_nearest, evaluate.ood_ratio) == (True, True, 0.2)
    registry.make("samplers", "knn", **options)
    loss = make_loss(config.regularize.loss, config.regularize.loss_options)
    assert (loss.beta, widths(loss)) == (BETA[name], [(1, 512), (512, 2)])


INLIERS = {"kind": "inlier", "k": 300, "boundary": 1.0, "candidates": 1500, "anchors": 100, "kept": 1}


def test_dream_id_has_the_published_constants():
    config = PRESETS["imagenet100-dream-id"].config
    assert INLIERS.items() <= config.sample.options.items()
    assert registry.make("samplers", "knn", **config.sample.options).sigma(768) == pytest.approx(
        0.01, rel=5e-4
    )
    budget = config.train.optimisation
    assert (budget.epochs, budget.lr, budget.batch, budget.batch * config.regularize.ratio) == (
        100,
        0.1,
        160,
        256,
    )
    r = config.regularize
    assert (r.loss, r.inlier_weight, config.filter.filters) == (("cross_entropy",), 1.0, ())


@pytest.mark.parametrize("name", ["cifar10-oal", "cifar100-oal", "imagenet-oal"])
def test_oal_has_the_published_constants(name):
    config = PRESETS[name].config
    assert (config.size, config.decode.output, config.decode.scheduler, config.decode.steps) == (
        224,
        "latents",
        "pndm",
        50,
    )
    options = options_by_name("losses", config.regularize.loss, config.regularize.loss_options)
    assert options["kd"] == {"logit": 4.0, "feature": 8.0}
    assert config.regularize.finetune
    assert registry.make("samplers", "knn", **config.sample.options).sigma(768) == pytest.approx(
        0.07, rel=5e-4
    )


def test_a_rate_for_a_trained_network_has_one_to_begin_with():
    """The published code fine-tunes torchvision's ResNet-50 at 5e-5, which trains nothing from scratch."""
    train = PRESETS["imagenet-oal"].config.train
    assert (train.optimisation.lr, train.backbone, train.init) == (5e-5, "timm:resnet50.tv_in1k", "")


def test_oal_as_published_has_the_codes_terms():
    """oal_trainer.py: 4 and 8 times the divergences, 0.1 CLUB of vectors, 0.2 DEEP_CLUB of columns."""
    arm = overlay(PRESETS["fashion-oal"].config, COMPARISONS["oal"].arms["oal as published"])
    assert arm.latents.adapter == "none"
    loss = make_loss(arm.regularize.loss, arm.regularize.loss_options)
    loss.build(Sizes(features=512, classes=10, text=768, teacher=768, latent=(4, 64, 64)))
    kd, vectors, latents = (loss.losses[name] for name in ("kd", "club_joint@vectors", "club_joint@latents"))
    assert (kd.logit, kd.feature, kd.temperature, kd.joint) == (4, 8, 1, True)
    assert [(club.of, club.weight) for club in (vectors, latents)] == [("vectors", 0.1), ("latents", 0.2)]
    assert widths(kd.map) == [(768, 512)]
    assert widths(vectors.q.mu) == widths(vectors.q.logvar) == [(768, 256), (256, 512)]
    assert widths(latents.q.mu) == [(64, 32), (32, 16), (16, 256), (256, 512)]
    assert widths(latents.q.logvar) == [(64, 256), (256, 512)]


def widths(network: nn.Module) -> list[tuple[int, int]]:
    """What the linear layers of a network take and give."""
    return [(x.in_features, x.out_features) for x in network.modules() if isinstance(x, nn.Linear)]


@pytest.mark.parametrize(
    ("name", "arm"), [(name, arm) for name, comparison in COMPARISONS.items() for arm in comparison.arms]
)
def test_every_arm_is_a_configuration(name, arm):
    base = PRESETS[COMPARISONS[name].preset].config
    config = overlay(base, COMPARISONS[name].arms[arm]).regularize
    make_loss(config.loss, config.loss_options)


def test_headroom_has_the_control_and_the_oracle():
    headroom = COMPARISONS["headroom"]
    arms = [overlay(PRESETS[headroom.preset].config, arm).regularize for arm in headroom.arms.values()]
    assert [(r.outliers, r.real, r.outlier_aug_prob) for r in arms] == [
        ("imagined", "", 0.25), ("imagined", "", 0.0), ("known", "", 0.25), ("real", "world", 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize("name", DREAM)
def test_decoder_and_training_have_the_published_constants(name):
    config = DREAM[name]
    decode = config.decode
    assert (decode.source, decode.scheduler, decode.steps) == ("CompVis/stable-diffusion-v1-4", "pndm", 50)
    assert (decode.guidance, decode.prompt) == (7.5, "A high-quality image of the {}")
    assert config.align.temperature == 0.1
    for part in (config.align, config.train):
        budget = part.optimisation
        assert part.backbone == "resnet34"
        assert (budget.epochs, budget.lr, budget.batch, budget.weight_decay) == (*TRAINING[name], 5e-4)
    assert make_loss(config.regularize.loss, config.regularize.loss_options).beta == BETA[name]
    assert (config.regularize.ratio, config.reconstruct.frac, config.filter.filters) == (1.0, 0.0, ())
    assert (config.reconstruct.detail, config.train.soften) == (False, 0.0)
    assert config.size == SIZE[name]
