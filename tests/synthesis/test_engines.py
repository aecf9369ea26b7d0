"""What runs the networks: pictures that differ in rounding alone, the same alone and in company, and said."""

from __future__ import annotations

import shutil

import pytest
import torch

from oodream.synthesis.decode import rendering
from oodream.synthesis.decoders import _engines
from oodream.synthesis.decoders.guided import GuidedDecoder
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError
from tests.helpers.vectors import unit

Z, Y, SEEDS = unit(5, 32), torch.arange(5) % 2, torch.arange(5)


def made(folder, **options) -> StableDecoder:
    options = {"precision": "fp32", "steps": 3, "tile": 4} | options
    return StableDecoder(str(folder), names=["circle", "star"], **options)


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


@pytest.mark.parametrize(
    "engine", ["channels_last", "openvino", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_an_engine_draws_what_the_eager_one_draws(tiny_pipeline, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    plain, other = made(tiny_pipeline), made(tiny_pipeline, engine=engine, guided_until=0.5)
    plain.guided_until = 0.5
    images = other(Z, Y, SEEDS).images_B3HW
    assert far(images, plain(Z, Y, SEEDS).images_B3HW) < 0.05
    alone = torch.cat([other(Z[[i]], Y[[i]], SEEDS[[i]]).images_B3HW for i in range(5)])
    assert torch.equal(images, alone)
    assert far(other.reconstruct(images), plain.reconstruct(images)) < 0.05
    assert far(other.encode(images), plain.encode(images)) < 0.01
    assert other.fingerprint != plain.fingerprint
    assert rendering(other) == {"rendering": {"engine": engine, "precision": "fp32"}}


def test_openvino_draws_xl(tiny_xl_pipeline):
    pytest.importorskip("openvino")
    z = unit(2, 64)
    plain, other = made(tiny_xl_pipeline, tile=2), made(tiny_xl_pipeline, tile=2, engine="openvino")
    images = [x(z, Y[:2], SEEDS[:2]).images_B3HW for x in (plain, other)]
    assert far(*images) < 0.05


def test_an_engine_that_is_not_there_is_refused_with_the_nearest(tiny_pipeline):
    with pytest.raises(DecoderError, match="Did you mean 'compiled'"):
        made(tiny_pipeline, engine="compile")


def test_compiling_needs_a_compiler(tiny_pipeline, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DecoderError, match=r"needs a C\+\+ compiler"):
        made(tiny_pipeline, engine="compiled")


def test_openvino_says_what_is_missing(tiny_pipeline, monkeypatch):
    monkeypatch.setattr(_engines, "find_spec", lambda name: None)
    with pytest.raises(DecoderError, match="needs openvino, which is not installed"):
        made(tiny_pipeline, engine="openvino")


def test_openvino_draws_on_cpus_alone(tiny_pipeline):
    with pytest.raises(DecoderError, match="draws on a CPU, not on meta"):
        _engines.make_engine("openvino", made(tiny_pipeline).pipeline, torch.device("meta"))


def test_guidance_by_a_classifier_needs_gradients(tiny_pipeline):
    pytest.importorskip("openvino")
    with pytest.raises(DecoderError, match="needs gradients"):
        GuidedDecoder(str(tiny_pipeline), names=["circle"], engine="openvino")


def test_precision_is_of_the_matrix_products_on_a_cpu(tiny_pipeline):
    exact, rounded = (made(tiny_pipeline, precision=p) for p in ("fp32", "bf16"))
    assert exact.pipeline.unet.dtype == rounded.pipeline.unet.dtype == torch.float32
    distance = far(exact(Z, Y, SEEDS).images_B3HW, rounded(Z, Y, SEEDS).images_B3HW)
    assert 0 < distance < 2
    assert exact.fingerprint != rounded.fingerprint


@pytest.mark.parametrize(
    ("precision", "message"), [("fp16", "in fp32 or bf16, not in fp16"), ("half", "auto or one of fp32")]
)
def test_precisions_that_a_cpu_has_not_are_refused(tiny_pipeline, precision, message):
    with pytest.raises(DecoderError, match=message):
        made(tiny_pipeline, precision=precision)
