"""The real shape of Stable Diffusion 1.4, with random weights, on a CPU: loading, the splice and two steps
fit into memory.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.fitting.tokenizer import fit_tokenizer
from tests.helpers.tiny import TINY


def save_full_size_pipeline(folder: Path) -> None:
    """CompVis/stable-diffusion-v1-4's networks (860 M, 123 M and 84 M parameters) with random weights, in
    half precision.
    """
    from dataclasses import replace

    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, replace(TINY, tokens=77), folder / "words")
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, projection_dim=768, max_position_embeddings=77, hidden_act="quick_gelu",
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    ).half()
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
        scaling_factor=0.18215, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).half()  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text).half(), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "sd")  # fmt: skip


@pytest.mark.slow
def test_stable_diffusion_1_4s_shape_on_a_cpu(tmp_path, record_property):
    save_full_size_pipeline(tmp_path)
    began = time.perf_counter()
    options = {"steps": 2, "scheduler": "pndm", "guidance": 7.5, "tile": 1, "size": 224}
    decoder = StableDecoder(str(tmp_path / "sd"), names=["circle", "star"], **options)
    loaded = time.perf_counter()
    assert sum(p.numel() for p in decoder.pipeline.unet.parameters()) == 859_520_964
    assert decoder.book.tokens_CD.shape == (2, 768)
    z = normalize(torch.randn(1, 768, generator=torch.Generator().manual_seed(0)), dim=1)
    image = decoder(z, torch.tensor([1]), torch.tensor([3])).images_B3HW
    drawn = time.perf_counter()
    assert image.shape == (1, 3, 224, 224)
    assert image.float().std() > 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for name, value in {"load_s": loaded - began, "draw_s": drawn - loaded, "peak_GiB": peak}.items():
        record_property(name, round(value, 1))
    times = f"loaded in {loaded - began:.0f} s, one image in two steps in {drawn - loaded:.0f} s"
    print(f"{times}, peak {peak:.1f} GiB")
    assert peak < 16
