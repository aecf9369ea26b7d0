"""A decoder's folder may name classes, files and numbers: only those of a pipeline are followed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from oodream.synthesis.errors import DecoderError
from oodream.synthesis.pipeline import EMBEDDED, check_folder, load_pipeline


@pytest.fixture
def decoder(tmp_path) -> Path:
    return Path(shutil.copytree(EMBEDDED, tmp_path / "decoder"))


def change(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_the_embedded_decoder_passes(decoder):
    check_folder(decoder)


@pytest.mark.parametrize(
    "entry",
    [
        ["os", "system"], ["diffusers", "StableDiffusionPipeline"], ["pipeline", "Evil"], "vae", None,
        ["diffusers", 3],
    ],
)  # fmt: skip
def test_parts_of_other_libraries_are_not_made(decoder, entry):
    """diffusers would import any installed module that the index names."""
    change(decoder / "model_index.json", vae=entry)
    with pytest.raises(DecoderError, match=r"its part 'vae' is .*parts are classes of diffusers"):
        load_pipeline(str(decoder), torch.device("cpu"))


@pytest.mark.parametrize("name", ["../unet/x.safetensors", "/etc/passwd", "weights.bin", "a\\b.safetensors"])
def test_an_index_of_shards_that_leads_elsewhere(decoder, name):
    index = decoder / "vae" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    with pytest.raises(DecoderError, match="which is no safetensors file beside it"):
        check_folder(decoder)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 1e12}),
        ("unet/config.json", {"block_out_channels": [10**9, 10**9]}),
        ("unet/config.json", {"sample_size": 10**6}),
        ("text_encoder/config.json", {"vocab_size": 10**10}),
        ("vae/config.json", {"nested": {"latent_channels": 1 << 60}}),
    ],
)
def test_numbers_that_would_take_all_memory(decoder, file, values):
    change(decoder / file, **values)
    with pytest.raises(DecoderError, match="and that of no pipeline"):
        load_pipeline(str(decoder), torch.device("cpu"))


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{}"])
def test_an_index_that_is_none(decoder, text):
    (decoder / "model_index.json").write_text(text)
    with pytest.raises(DecoderError, match=r"is no JSON object|holds a None"):
        check_folder(decoder)


def test_sizes_that_do_not_fit_the_weights_are_refused(decoder):
    change(decoder / "unet" / "config.json", cross_attention_dim=77)
    with pytest.raises(DecoderError, match="cannot be loaded"):
        load_pipeline(str(decoder), torch.device("cpu"))
