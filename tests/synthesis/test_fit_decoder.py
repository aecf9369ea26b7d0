"""The verb that trains a small Stable Diffusion: a real folder comes out, and it resumes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from oodream.cli.main import main
from oodream.core.errors import DataError
from oodream.core.files import write_bytes
from oodream.core.options import ConfigError, to_json
from oodream.core.tensors import load_state, save_tensors
from oodream.data.captions import captioned_folder
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.fit_decoder import fit_decoder
from oodream.synthesis.fitting.prompts import Prompts
from oodream.synthesis.fitting.unet import noisy_batch
from oodream.synthesis.fitting.vae import Posteriors, encode_all
from oodream.synthesis.names import known_to
from oodream.synthesis.pipeline import load_pipeline
from tests.helpers.bucket import objects
from tests.helpers.tiny import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def captioned(shapes):
    return captioned_folder(shapes, 32)


@pytest.fixture(scope="module")
def fitted(captioned, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "decoder"
    return out, fit_decoder(*captioned, out, TINY, CPU)


def test_diffusers_loads_and_draws(fitted):
    from diffusers import StableDiffusionPipeline

    out, summary = fitted
    pipe = StableDiffusionPipeline.from_pretrained(out)
    image = pipe("a picture of a circle", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3)
    assert type(pipe.tokenizer).__name__.startswith("CLIPTokenizer")
    assert summary["images"] == 60
    assert all(n > 0 for n in summary["parameters"].values())
    grids = sorted(out.with_name("decoder.work").glob("samples/*.png"))
    assert [g.name for g in grids] == ["0000002.png", "0000003.png"]
    assert not list(out.rglob("*.bin")) + list(out.rglob("*.pt"))


def test_a_decoder_in_a_bucket(fitted, shapes, s3, tmp_path):
    values = {key: v if isinstance(v, list) else [v] for key, v in to_json(TINY).items()}
    words = [word for key, v in values.items() for word in (f"--{key.replace('_', '-')}", *map(str, v))]
    assert main(["fit-decoder", str(shapes), "--out", f"{s3}/decoder", *words]) == 0
    for name, data in objects(f"{s3}/decoder").items():
        write_bytes(tmp_path / "decoder" / name, data)
    names = [{p.relative_to(f) for p in f.rglob("*")} for f in (tmp_path / "decoder", fitted[0])]
    assert names[0] == names[1]
    assert load_pipeline(str(tmp_path / "decoder"), CPU).vae_scale_factor > 1


def test_the_names_that_it_has_learnt_lie_beside_it(fitted):
    assert known_to(fitted[0]) == {"circle", "square", "star"}


def test_a_longer_training_adds_to_the_names(fitted, captioned, tiny_pipeline, tmp_path):
    """Of a start that does not say what it knows, nothing is claimed."""
    images, captions, weights = captioned
    other = [f"a doodle of a {{{caption} shape}}" for caption in captions]
    for start, learnt in (
        (fitted[0], {"circle", "square", "star", "circle shape", "square shape", "star shape"}),
        (tiny_pipeline, None),
    ):
        out = tmp_path / f"after-{Path(start).name}"
        config = dataclasses.replace(TINY, start=str(start), unet_steps=1)
        fit_decoder(images, other, weights, out, config, CPU)
        assert known_to(out) == learnt


def test_what_must_not_be_learnt_is_refused_before_work(fitted, captioned, tmp_path):
    images, captions, weights = captioned
    config = dataclasses.replace(TINY, without=("tree", "star"))
    with pytest.raises(DataError, match=r"Captions hold what --without excludes: star\. Take their pictures"):
        fit_decoder(*captioned, tmp_path / "e", config, CPU)
    marked = [f"a doodle of a {{{caption}}}" for caption in captions]
    with pytest.raises(DataError, match=re.escape("'a doodle of a star' (star)")):
        fit_decoder(
            images, marked, weights, tmp_path / "e", dataclasses.replace(TINY, without=("star",)), CPU
        )
    config = dataclasses.replace(TINY, start=str(fitted[0]), without=("star",))
    with pytest.raises(DataError, match=r"has learnt what --without excludes: star\. Begin with another"):
        fit_decoder(images, ["tree"] * len(images), weights, tmp_path / "e", config, CPU)
    assert not list(tmp_path.glob("e*"))


def test_seconds_end_a_training(captioned, tmp_path):
    """And a later call with more of them goes on with the same state."""
    config = dataclasses.replace(TINY, vae_steps=1, unet_steps=1_000_000, unet_seconds=0.5, save_every=500)
    fit_decoder(*captioned, tmp_path / "d", config, CPU)
    first = load_state(work_of(tmp_path / "d") / "unet.state", CPU)
    assert 0 < first["step"] < 1_000_000
    assert first["spent"] >= 0.5
    fit_decoder(
        *captioned, tmp_path / "d", dataclasses.replace(config, unet_seconds=first["spent"] + 0.3), CPU
    )
    second = load_state(work_of(tmp_path / "d") / "unet.state", CPU)
    assert second["step"] > first["step"]
    assert second["spent"] >= first["spent"] + 0.3


def test_latents_have_unit_scale(fitted, captioned):
    """The scaling factor makes the sampled latents' standard deviation one, as Stable Diffusion's does."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(fitted[0], subfolder="vae", dtype=torch.float32)
    images, _, weights = captioned
    latents = encode_all(vae, images, CPU, fitted[0].with_name("again.safetensors"))
    noise = torch.randn(latents.mean.shape, generator=torch.Generator().manual_seed(0))
    z = (latents.mean.float() + latents.std.float() * noise) * vae.config.scaling_factor
    assert z.std().item() == pytest.approx(1, rel=0.05)
    assert latents.sample_std(weights) * vae.config.scaling_factor == pytest.approx(1, rel=0.05)


def work_of(out: Path) -> Path:
    return out.with_name(out.name + ".work")


def weights_of(folder):
    from safetensors.torch import load_file

    return {
        f"{file.parent.name}.{k}": v
        for file in sorted(folder.rglob("*.safetensors"))
        for k, v in load_file(file).items()
    }


def test_a_stopped_fit_ends_as_an_undisturbed_one(fitted, captioned, tmp_path):
    """Bit for bit. A resume that began at step 0 would make more steps."""
    out, work = tmp_path / "decoder", tmp_path / "decoder.work"
    shutil.copytree(work_of(fitted[0]) / "tokenizer", work / "tokenizer")
    fit_decoder(*captioned, out, dataclasses.replace(TINY, vae_steps=2, unet_steps=0), CPU)
    (work / "latents.safetensors").unlink()  # of a VAE that has not learnt to the end
    fit_decoder(*captioned, out, dataclasses.replace(TINY, unet_steps=2), CPU)
    fit_decoder(*captioned, out, TINY, CPU)
    undisturbed, resumed = weights_of(fitted[0]), weights_of(out)
    assert undisturbed.keys() == resumed.keys()
    differing = [name for name, x in undisturbed.items() if not torch.equal(x, resumed[name])]
    assert differing == []


@pytest.mark.parametrize(("file", "prefix"), [("vae.state", "vae."), ("unet.state", "")])
def test_the_moving_average_is_published(fitted, file, prefix):
    """And not the last step's weights, from which it differs where weights began at zero."""
    state, published = load_state(work_of(fitted[0]) / file, CPU), weights_of(fitted[0])
    last = {prefix + name.replace("text.", "text_encoder.", 1): x for name, x in state["modules"].items()}
    average = dict(zip(last, state["average"]["shadow_params"], strict=True))
    assert len(average) > 50
    assert [name for name, x in average.items() if not torch.equal(published[name], x.half())] == []
    assert [name for name, x in last.items() if not torch.equal(published[name], x.half())]


def test_other_images_or_options_are_refused(fitted, captioned):
    out, _ = fitted
    with pytest.raises(ValueError, match="begun with other images or another configuration"):
        fit_decoder(*captioned, out, dataclasses.replace(TINY, text_width=16), CPU)
    images, captions, weights = captioned
    part = torch.arange(30)
    with pytest.raises(ValueError, match="begun with other images"):
        fit_decoder(images.subset(part), captions[:30], weights[:30], out, TINY, CPU)


def test_a_loss_that_is_not_a_number_stops(captioned, tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit_decoder(*captioned, tmp_path / "d", dataclasses.replace(TINY, vae_lr=1e30), CPU)
    assert not (tmp_path / "d").exists()


def test_an_existing_decoder_goes_on_learning(fitted, captioned, tmp_path):
    old, out = fitted[0], tmp_path / "next"
    config = dataclasses.replace(TINY, start=str(old), unet_steps=2)
    summary = fit_decoder(*captioned, out, config, CPU)
    assert summary["vae_loss"] is None
    assert not [file for file in out.rglob("*.json") if str(old) in file.read_text()], (
        "no path of this machine is published"
    )
    a, b = weights_of(old), weights_of(out)
    kept = {name for name in a if torch.equal(a[name], b[name])}
    assert {name for name in a if name.startswith("vae.")} <= kept
    assert not any(name.startswith("unet.conv_in") for name in kept)
    assert (
        a["unet.conv_in.weight"].float() - b["unet.conv_in.weight"].float()
    ).abs().max() < 0.02  # two small steps away
    assert json.loads((out / "vae" / "config.json").read_text())["scaling_factor"] == pytest.approx(
        json.loads((old / "vae" / "config.json").read_text())["scaling_factor"]
    )


def test_the_loss_is_the_squared_error_of_the_velocity(fitted, captioned, tmp_path):
    """Of the first step, computed again from the networks before it and the schedule's own numbers.

    The latents have several times their usual spread, so that no other target has nearly the same error.
    """
    images, captions, weights = captioned
    config = dataclasses.replace(TINY, start=str(fitted[0]), unet_steps=1, batch=8)
    mean = 12 * torch.randn(len(images), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = {"mean": mean.half(), "std": torch.ones_like(mean).half()}
    save_tensors(work_of(tmp_path / "d") / "latents.safetensors", latents)
    loss = fit_decoder(*captioned, tmp_path / "d", config, CPU)["unet_loss"]
    pipe = load_pipeline(str(fitted[0]), CPU)
    scale, noising = pipe.vae.config.scaling_factor, DDPMScheduler.from_config(pipe.scheduler.config)
    prompts = Prompts(pipe.tokenizer, captions, config.templates, CPU)
    rows = torch.tensor([[prompts.row(caption, i) for i in range(3)] for caption in captions])
    batch = noisy_batch(Posteriors(**latents), rows, prompts.empty, weights, scale, noising, config, 0)
    assert 0 < (batch.cosine_B > 0).sum() < 8, "both kinds of prompts"
    with torch.no_grad():
        context = prompts.encode(pipe.text_encoder, batch.row_B, batch.cosine_B, batch.noise_BD)
        predicted = pipe.unet(batch.noisy_BFHW, batch.t_B, context).sample
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
    a = (1 - beta).cumprod(0)[batch.t_B][:, None, None, None]
    z = a.sqrt() * batch.noisy_BFHW - (1 - a).sqrt() * batch.velocity_BFHW
    noise = (batch.noisy_BFHW - a.sqrt() * z) / (1 - a).sqrt()
    velocity = a.sqrt() * noise - (1 - a).sqrt() * z
    error, *others = ((predicted - x).square().mean().item() for x in (velocity, noise, z, batch.noisy_BFHW))
    assert loss == pytest.approx(error, rel=0.02)
    assert min(abs(loss / other - 1) for other in others) > 0.1


def test_an_old_vocabulary_is_completed(captioned, tiny_pipeline, tmp_path):
    from diffusers import StableDiffusionPipeline

    old = Path(shutil.copytree(tiny_pipeline, tmp_path / "old"))
    file = old / "tokenizer" / "tokenizer.json"
    state = json.loads(file.read_text())
    vocabulary = state["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = vocabulary.pop("~</w>")  # so numbers have no gap
    file.write_text(json.dumps(state))
    fit_decoder(*captioned, tmp_path / "new", dataclasses.replace(TINY, start=str(old), unet_steps=1), CPU)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "new")
    assert pipe.tokenizer.tokenize("~") == ["~</w>"]
    assert pipe.text_encoder.get_input_embeddings().num_embeddings == len(pipe.tokenizer)


def test_a_start_of_another_resolution_is_refused(captioned, tiny_pipeline, tmp_path):
    with pytest.raises(DecoderError, match="makes images of 32 pixels; fit it with --resolution 32"):
        fit_decoder(
            *captioned,
            tmp_path / "d",
            dataclasses.replace(TINY, start=str(tiny_pipeline), resolution=64),
            CPU,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ("a {} on a {surface}",)}, "templates needs {} once"),
        ({"templates": ("{}", "a picture")}, "templates needs {} once"),
        ({"resolution": 30}, "resolution must be a multiple of 4"),
        ({"text_width": 18}, "text_width must be a multiple of 4"),
        ({"unet_channels": ()}, "at least one width"),
    ],
)
def test_what_no_network_can_be_is_refused_before_work(captioned, tmp_path, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        fit_decoder(*captioned, tmp_path / "d", dataclasses.replace(TINY, **options), CPU)
    assert not (tmp_path / "d.work").exists()
