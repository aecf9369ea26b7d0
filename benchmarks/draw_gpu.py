"""Drawing on a GPU with Stable Diffusion 1.4's shapes (random weights, 512 pixels): the published recipe, and
what each step away from it wins.

The recipe: PLMS with 50 steps; batches of 4 that share one vector and one prompt; guidance 7.5; in mixed
precision, as it is published, and in float32. It is timed at two numbers of steps, and scaled. oodream:
DPM-Solver++ with as many steps and the guidance of a run, a vector of its own for every image. All together
come first, then one change after the other. "Evaluations" are the U-Net's for an image. "Share" is that of
the floor reached: FLOPs (two for a multiplication and an addition) over the card's peak in bf16. Weights are
random, so no row says anything about pictures. The first drawing, which compiles, is counted apart. Beside
each row stands whether the same rows have the same bytes when they are drawn again, and at another place of a
tile.

python benchmarks/draw_gpu.py --device cuda --out runs/draw-gpu
python benchmarks/draw_gpu.py --device cuda --deterministic --out runs/draw-gpu-deterministic
python benchmarks/draw_gpu.py --device cpu --tiny --out runs/draw-tiny
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from _recipe import BATCH, GUIDANCE, STEPS, Cost, cost, recipe, vectors
from torch import Tensor

from oodream.config import FitDecoderConfig
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.fitting.tokenizer import fit_tokenizer

NAMES = ("circle", "star")
PEAK = 790e12  # FLOP/s in bf16, dense, of an H100 as sold for servers
TILE, FEW = 16, (3, 9)
FULL: dict[str, Any] = {
    "sample": 64,
    "unet": (320, 640, 1280, 1280),
    "layers": 2,
    "vae": (128, 256, 512, 512),
    "tiny": 64,
    "text": 768,
    "depth": 12,
    "heads": 12,
    "words": 49408,
    "groups": 32,
}
TINY: dict[str, Any] = {
    "sample": 8,
    "unet": (16, 32, 32, 32),
    "layers": 1,
    "vae": (8, 8, 8, 8),
    "tiny": 8,
    "text": 32,
    "depth": 1,
    "heads": 4,
    "words": 700,
    "groups": 4,
}


def save_pipeline(folder: Path, shape: dict[str, Any], device: torch.device) -> None:
    """A pipeline and a tiny autoencoder of this shape, with random weights, in half precision."""
    from diffusers import (
        AutoencoderKL,
        AutoencoderTiny,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    config = FitDecoderConfig(vocabulary=700, tokens=77, text_width=shape["text"])
    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, config, folder / "words")
    text = CLIPTextConfig(
        vocab_size=shape["words"], hidden_size=shape["text"], intermediate_size=4 * shape["text"],
        num_hidden_layers=shape["depth"], num_attention_heads=shape["heads"],
        projection_dim=shape["text"], max_position_embeddings=77, hidden_act="quick_gelu",
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(
            sample_size=shape["sample"],
            block_out_channels=shape["unet"],
            layers_per_block=shape["layers"],
            cross_attention_dim=shape["text"],
            attention_head_dim=8,
            norm_num_groups=shape["groups"],
        )
        vae = AutoencoderKL(
            block_out_channels=shape["vae"], layers_per_block=shape["layers"], latent_channels=4,
            sample_size=8 * shape["sample"], scaling_factor=0.18215, norm_num_groups=shape["groups"],
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        encoder = CLIPTextModel(text)
        channels = (shape["tiny"],) * 4
        small = AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae.half(), text_encoder=encoder.half(), tokenizer=tokenizer, unet=unet.half(),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "sd")  # fmt: skip
    small.save_pretrained(folder / "small")


class Bench:
    """Rows as they come: measured, printed, and written to `out`."""

    def __init__(self, folder: Path, device: torch.device, out: Path, seconds: float, tile: int) -> None:
        self.folder, self.device, self.out, self.seconds, self.tile = folder, device, out, seconds, tile
        self.began, self.rows = time.perf_counter(), list[dict[str, Any]]()
        self.facts: dict[str, Any] = {"torch": torch.__version__, "device": str(device), "tile": tile}
        if device.type == "cuda":
            self.facts["card"] = torch.cuda.get_device_name(device)

    def decoder(self, **options: Any) -> StableDecoder:
        """One with these options; the time it takes is counted to none of the rows."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return StableDecoder(
            str(self.folder / "sd"), names=NAMES, device=self.device, size=224, tile=self.tile, **options
        )

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clock(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def spent(self) -> float:
        return time.perf_counter() - self.began

    def row(self, name: str, seconds: float, n: int, flops: float, **more: Any) -> None:
        """A row of n images that took so long."""
        memory = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0
        row = {
            "row": name,
            "images_per_second": n / seconds,
            "ms": 1000 * seconds / n,
            "memory_GiB": memory,
            "share": flops / (seconds / n) / PEAK,
            **more,
        }
        self.rows.append(row)
        faster, share = self.rows[0]["ms"] / row["ms"], 100 * row["share"]
        print(
            f"{name:46} {n / seconds:8.2f} images/s {row['ms']:9.1f} ms  x{faster:6.1f}  {memory:6.1f} GiB  "
            f"share {share:5.1f} %  {json.dumps(more)}  [{self.spent():.0f} s]",
            flush=True,
        )
        self.write()

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "draw_gpu.json").write_text(json.dumps({**self.facts, "rows": self.rows}, indent=1))

    def recipe(self, name: str, context: Callable[[], Any]) -> None:
        """The published recipe on one batch: timed at few steps, and scaled to all of them."""
        if self.spent() > self.seconds:
            print(f"{name}: left out, time is up", flush=True)
            return
        decoder = self.decoder(scheduler="pndm", steps=STEPS, guidance=GUIDANCE, precision="fp32")
        price = self.price(decoder)
        z, y = vectors(decoder, NAMES, BATCH)
        with context():
            recipe(decoder, z, y, FEW[0])  # the first use of a shape takes longer
            self.forget()
            few, more = (self.clock(lambda steps=steps: recipe(decoder, z, y, steps)) for steps in FEW)
        seconds = more + (STEPS - FEW[1]) * (more - few) / (FEW[1] - FEW[0])
        used = 2 * (STEPS + 1)
        self.row(name, seconds, BATCH, used * price.unet + price.vae, evaluations=used)

    def forget(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def ours(self, name: str, tile: int = 0, decoder: StableDecoder | None = None, **options: Any) -> None:
        """Images with vectors of their own; none of it where time is up."""
        if self.spent() > self.seconds:
            print(f"{name}: left out, time is up", flush=True)
            return
        decoder = decoder or self.decoder(**options)
        decoder.tile, n = tile or self.tile, self.tile
        price = self.price(decoder)
        (z, y), seeds, drawn = vectors(decoder, NAMES, n), torch.arange(n), list[Tensor]()

        def draw(rows: slice = slice(None)) -> None:
            images = decoder(z[rows], y[rows], seeds[rows]).images_B3HW
            assert images is not None
            drawn.append(images)

        first, used = self.clock(draw), decoder.evaluations
        self.forget()
        seconds = self.clock(draw)
        draw(slice(3, 5))
        bytes_ = {"again": torch.equal(drawn[0], drawn[1]), "elsewhere": torch.equal(drawn[2], drawn[1][3:5])}
        flops = used * price.unet + price.vae
        self.row(name, seconds, n, flops, evaluations=used, first_s=round(first, 1), same_bytes=bytes_)

    def price(self, decoder: StableDecoder) -> Cost:
        """FLOPs at the decoder's resolution, with its autoencoder."""
        key = f"{decoder.resolution} {type(decoder.pipeline.vae).__name__}"
        if key not in self.facts:
            self.facts[key] = vars(cost(decoder))
        return Cost(**self.facts[key])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    parser.add_argument("--out", type=Path, default=Path("runs/draw-gpu"))
    parser.add_argument("--seconds", type=float, default=150, help="no row begins later than this")
    parser.add_argument("--deterministic", action="store_true", help="deterministic algorithms alone")
    args = parser.parse_args()
    if args.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    device = torch.device(args.device)
    shape, tile = (TINY, 4) if args.tiny else (FULL, TILE)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), device, args.out, args.seconds, tile)
        save_pipeline(bench.folder, shape, device)
        print(f"{bench.facts}; made in {bench.spent():.0f} s", flush=True)
        half = "fp16" if device.type == "cuda" else "fp32"
        mixed = torch.float16 if device.type == "cuda" else torch.bfloat16
        interval = {"guided_from": 0.2, "guided_until": 0.7}
        last: dict[str, Any] = {"precision": half, "engine": "channels_last"}
        small = {"vae": str(bench.folder / "small")}
        low = {"resolution": 4 * shape["sample"]}
        bench.recipe("recipe, mixed precision (as published)", lambda: torch.autocast(device.type, mixed))
        bench.ours("all below together", **last, **interval, **small)
        bench.ours("the same with compiled blocks", **last | {"engine": "compiled"}, **interval, **small)
        eager = bench.decoder(precision=half)
        bench.ours(f"DPM-Solver++, {eager.steps} steps, half precision", BATCH, eager)
        bench.ours(f"{tile} images together", decoder=eager)
        del eager
        bench.ours("channels last", **last)
        bench.ours("guidance from 0.2 to 0.7 of the trajectory", **last, **interval)
        bench.ours("all of these in bf16", **last | {"precision": "bf16"}, **interval, **small)
        bench.ours(f"all of these at {low['resolution']} pixels", **last, **interval, **small, **low)
        bench.recipe("recipe, float32", nullcontext)
    bench.facts["seconds"] = bench.spent()
    bench.write()
    print(f"{bench.spent():.0f} s", flush=True)


if __name__ == "__main__":
    main()
