"""The verb that trains a small Stable Diffusion: a real folder comes out, it resumes, and it refuses what it
was not begun with.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from oodream.core.errors import DataError
from oodream.data.captions import captioned_folder
from oodream.synthesis.decoders.stable import DecoderError
from oodream.synthesis.fit_decoder import draw, encode_all, fit_decoder, fit_tokenizer
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


def weights_of(folder):
    from safetensors.torch import load_file

    return {
        f"{file.parent.name}.{k}": v
        for file in sorted(folder.rglob("*.safetensors"))
        for k, v in load_file(file).items()
    }


def test_a_stopped_fit_ends_as_an_undisturbed_one(fitted, captioned, tmp_path):
    out = tmp_path / "decoder"
    fit_decoder(*captioned, out, dataclasses.replace(TINY, vae_steps=2, unet_steps=0), CPU)
    (tmp_path / "decoder.work" / "latents.safetensors").unlink()
    (tmp_path / "decoder.work" / "unet.state").unlink(missing_ok=True)
    fit_decoder(*captioned, out, dataclasses.replace(TINY, unet_steps=2), CPU)
    fit_decoder(*captioned, out, TINY, CPU)
    a, b = weights_of(fitted[0]), weights_of(out)
    assert a.keys() == b.keys()
    assert all(torch.isfinite(v).all() for v in b.values())


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


def test_weights_decide_what_is_drawn():
    weights = torch.tensor([0.0, 1.0, 3.0])
    rows = torch.cat([draw(weights, TINY, "x", step)[0] for step in range(500)])
    shares = rows.bincount(minlength=3) / len(rows)
    assert shares[0] == 0
    assert shares[2].item() == pytest.approx(0.75, abs=0.04)
    assert torch.equal(draw(weights, TINY, "x", 3)[0], draw(weights, TINY, "x", 3)[0])


def test_tokenizer_is_clips(tmp_path):
    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, TINY, tmp_path / "t")
    assert tokenizer.tokenize("A RED  circle") == ["a</w>", "red</w>", "circle</w>"]
    ids = tokenizer("red circle").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.model_max_length == TINY.tokens


def test_tokenizer_knows_every_printable_character(tmp_path):
    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, TINY, tmp_path / "t")
    for character in map(chr, range(33, 127)):
        ids = tokenizer(f"a{character} {character}a {character}", add_special_tokens=False).input_ids
        assert tokenizer.eos_token_id not in ids  # CLIP's unknown token is its end token
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer) <= TINY.vocabulary


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


def test_an_old_vocabulary_is_completed(captioned, tiny_pipeline, tmp_path):
    import shutil

    from diffusers import StableDiffusionPipeline

    old = Path(shutil.copytree(tiny_pipeline, tmp_path / "old"))
    file = old / "tokenizer" / "tokenizer.json"
    state = json.loads(file.read_text())
    last = max(state["model"]["vocab"], key=state["model"]["vocab"].get)
    assert last == "~</w>"
    del state["model"]["vocab"][last]
    file.write_text(json.dumps(state))
    fit_decoder(*captioned, tmp_path / "new", dataclasses.replace(TINY, start=str(old), unet_steps=1), CPU)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "new")
    assert pipe.tokenizer.tokenize("~") == ["~</w>"]
    assert pipe.text_encoder.get_input_embeddings().num_embeddings == len(pipe.tokenizer)


def test_a_start_of_another_resolution_is_refused(captioned, tiny_pipeline, tmp_path):
    with pytest.raises(DecoderError, match="draws 32 pixels; fit it with --resolution 32"):
        fit_decoder(
            *captioned,
            tmp_path / "d",
            dataclasses.replace(TINY, start=str(tiny_pipeline), resolution=64),
            CPU,
        )


def test_captions_may_not_leave_the_folder(shapes, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metadata.jsonl").write_text(json.dumps({"file_name": "../../etc/passwd", "text": "x"}))
    with pytest.raises(DataError, match="outside"):
        captioned_folder(tmp_path / "c", 32)
