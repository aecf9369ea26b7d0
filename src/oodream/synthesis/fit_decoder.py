"""The verb `fit-decoder`: trains a small Stable Diffusion from captioned images and writes it as a diffusers folder.

Four parts, in order: a byte-level BPE tokenizer on the captions, an AutoencoderKL, then a CLIP text transformer and a U-Net
together on the cached latents (v-prediction, dropped captions for classifier-free guidance, exponential moving average).
Each part resumes from its last saved state by the same call. With `start`, an existing decoder goes on learning instead: its
tokenizer and VAE are kept. This is for domains Stable Diffusion does not know, and it made the embedded default.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..config import FitDecoderConfig
from ..core.files import atomic_folder, load_tensors, read_json, save_tensors, write_bytes, write_json
from ..core.options import to_json
from ..core.progress import progress
from ..core.seeding import generator, seeded
from .decoders.stable import DecoderError, load

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from ..data.images import Images


def fit_decoder(
    images: Images,
    captions: Sequence[str],
    weights: torch.Tensor,
    out: Path,
    config: FitDecoderConfig,
    device: torch.device,
) -> dict[str, Any]:
    """Trains on N images (uint8, `config.resolution` pixels) with N captions drawn in proportion to `weights`.

    Writes a `StableDiffusionPipeline` folder to `out` (half precision) and returns its sizes and losses. Working state lives in
    `out` + ".work" and is what a second call resumes from; it is refused when the configuration or the images have changed.
    """
    work = out.with_name(out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    may_change = ("vae_steps", "unet_steps", "save_every", "device")
    options = {key: value for key, value in to_json(config).items() if key not in may_change}
    identity = {"config": options, "images": images.fingerprint()}
    if (work / "identity.json").exists() and read_json(work / "identity.json") != identity:
        raise ValueError(
            f"{work} was begun with other images or another configuration; remove it to start afresh."
        )
    write_json(work / "identity.json", identity)

    if config.start:
        pipeline, vae_loss = started(config, work / "tokenizer"), None
        latents = encode_all(pipeline.vae.to(device), images, device, work / "latents.safetensors")
    else:
        tokenizer = fit_tokenizer(captions, config, work / "tokenizer")
        vae, vae_loss = fit_vae(images, weights, config, work, device)
        latents = encode_all(vae, images, device, work / "latents.safetensors")
        vae.register_to_config(scaling_factor=round(1 / latents.sample_std(weights), 5))
        pipeline = build_pipeline(tokenizer, vae, config)
    unet_loss = fit_unet(pipeline, latents, captions, weights, config, work, device)
    with atomic_folder(out) as folder:
        pipeline.to(dtype=torch.float16).save_pretrained(folder)
        for file in (folder / "model_index.json", *folder.glob("*/config.json")):
            told = read_json(file)
            told.pop("_name_or_path", None)  # a path of this machine
            # transformers would load what this says and diffusers float32, and the two do not multiply.
            write_json(file, told | ({"dtype": "float32"} if file.parent.name == "text_encoder" else {}))
    parameters = {
        name: sum(p.numel() for p in getattr(pipeline, name).parameters())
        for name in ("vae", "text_encoder", "unet")
    }
    return {"parameters": parameters, "vae_loss": vae_loss, "unet_loss": unet_loss, "images": len(images)}


def fit_tokenizer(captions: Sequence[str], config: FitDecoderConfig, folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE, lower case, `</w>` at word ends) whose merges are learnt from the captions."""
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").exists():
        texts = [*captions, *config.templates]
        empty = CLIPTokenizer(model_max_length=config.tokens)
        trained = empty.train_new_from_iterator(
            [texts], vocab_size=config.vocabulary - 94, show_progress=False
        )
        save_complete(trained, folder)
    return CLIPTokenizer.from_pretrained(folder)


def save_complete(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Saves the tokenizer with every printable ASCII character also as the end of a word: no English text has an unknown part.

    One learnt from captions lacks the endings that no caption has ("class 1").
    """
    with atomic_folder(folder) as fresh:
        tokenizer.save_pretrained(fresh)
        state = read_json(fresh / "tokenizer.json")
        vocabulary = state["model"]["vocab"]
        for number in range(ord("!"), ord("~") + 1):
            vocabulary.setdefault(f"{chr(number)}</w>", len(vocabulary))
        write_json(fresh / "tokenizer.json", state)


def started(config: FitDecoderConfig, folder: Path) -> StableDiffusionPipeline:
    """The decoder `config.start`, its tokenizer made complete in `folder`; DecoderError where its resolution is another."""
    from transformers import CLIPTokenizer

    pipeline = load(config.start, torch.device("cpu"))
    own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    if own != config.resolution:
        raise DecoderError(f"The decoder {config.start} draws {own} pixels; fit it with --resolution {own}.")
    if not folder.exists():
        save_complete(pipeline.tokenizer, folder)
    pipeline.tokenizer = CLIPTokenizer.from_pretrained(folder)
    with seeded(config.seed, "fit-decoder", "started"):
        pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
    pipeline.vae.eval().requires_grad_(False)
    return pipeline


def draw(
    weights: torch.Tensor, config: FitDecoderConfig, purpose: str, step: int
) -> tuple[torch.Tensor, torch.Generator]:
    """The rows of one step's batch, and the step's generator for everything else that is random in it."""
    g = generator(config.seed, "fit-decoder", purpose, step)
    return torch.multinomial(weights, config.batch, replacement=True, generator=g), g


@dataclass
class Fitting:
    """Steps a set of modules with AdamW, keeps their moving average, and saves or resumes the whole state."""

    modules: nn.Module
    file: Path
    steps: int
    lr: float
    ema: float

    def __post_init__(self) -> None:
        from diffusers.training_utils import EMAModel

        self.parameters = list(self.modules.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.average = EMAModel(self.parameters, decay=self.ema, use_ema_warmup=True, power=0.8)
        self.step, self.loss = 0, math.nan
        if self.file.exists():
            state = torch.load(self.file, weights_only=True, map_location=self.parameters[0].device)
            self.modules.load_state_dict(state["modules"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.load_state_dict(state["average"])
            self.step, self.loss = state["step"], state["loss"]

    def rate(self) -> float:
        """The learning rate's factor: 200 steps of warm-up, constant, then linearly to zero over the last third."""
        return min(1.0, (self.step + 1) / 200, max(0.0, (self.steps - self.step) / (self.steps / 3)))

    def update(self, loss: torch.Tensor) -> None:
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The loss became {value} at step {self.step}; lower the learning rate ({self.lr})."
            )
        self.loss = value if math.isnan(self.loss) else 0.99 * self.loss + 0.01 * value
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.rate()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.parameters)
        self.step += 1

    def save(self) -> None:
        state = {
            "modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(), "step": self.step, "loss": self.loss,
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.file, buffer.getvalue())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the modules hold the moving average."""
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)

    def finish(self) -> None:
        """Puts the moving average into the modules, for good."""
        self.average.copy_to(self.parameters)


def fit_vae(
    images: Images, weights: torch.Tensor, config: FitDecoderConfig, work: Path, device: torch.device
) -> tuple[AutoencoderKL, float]:
    """An AutoencoderKL (f = 4): absolute and squared error, absolute error of the pixel differences, and a little KL."""
    from diffusers import AutoencoderKL

    levels = len(config.vae_channels)
    with seeded(config.seed, "fit-decoder", "vae"):
        vae = AutoencoderKL(
            block_out_channels=config.vae_channels, layers_per_block=1, latent_channels=4,
            norm_num_groups=math.gcd(8, *config.vae_channels),
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            sample_size=config.resolution,
        ).to(device)  # fmt: skip
    fitting = Fitting(vae, work / "vae.state", config.vae_steps, config.vae_lr, min(config.ema, 0.999))
    start = fitting.step
    for step in progress(
        range(start, config.vae_steps), total=config.vae_steps, done=start, what="autoencoder", unit="step"
    ):
        rows, g = draw(weights, config, "vae", step)
        x = to_signed(images.batch(rows)).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=g).to(device)
            y = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        error = y - x
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        loss = (
            error.abs().mean()
            + error.square().mean()
            + 0.5 * edges
            + 1e-4 * posterior.kl().float().mean() / 256
        )
        fitting.update(loss)
        if fitting.step % config.save_every == 0 or fitting.step == config.vae_steps:
            fitting.save()
    fitting.finish()
    return vae.eval().requires_grad_(False), fitting.loss


@dataclass(frozen=True)
class Latents:
    """The VAE's posterior of every image: mean and standard deviation, float16 (N, 4, h, w)."""

    mean: torch.Tensor
    std: torch.Tensor

    def sample_std(self, weights: torch.Tensor) -> float:
        """The standard deviation of sampled latents under the sampling weights: SD's scaling factor is its inverse."""
        w = (weights / weights.sum())[:, None, None, None] / self.mean[0].numel()
        first, second = (w * self.mean).sum(), (w * (self.mean.float() ** 2 + self.std.float() ** 2)).sum()
        return (second - first**2).sqrt().item()


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: Images, device: torch.device, file: Path) -> Latents:
    """The posterior of all images, in order; kept in `file` for the next call."""
    if not file.exists():
        posteriors = [vae.encode(to_signed(batch).to(device)).latent_dist for batch, _ in images.batches(256)]
        save_tensors(
            file,
            {
                name: torch.cat([getattr(p, name).half().cpu() for p in posteriors])
                for name in ("mean", "std")
            },
        )
    return Latents(**load_tensors(file))


def build_pipeline(
    tokenizer: CLIPTokenizer, vae: AutoencoderKL, config: FitDecoderConfig
) -> StableDiffusionPipeline:
    """An untrained text transformer and U-Net around the trained VAE, as a `StableDiffusionPipeline`."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=config.text_width, intermediate_size=4 * config.text_width,
        projection_dim=config.text_width, num_hidden_layers=config.text_layers, num_attention_heads=4,
        max_position_embeddings=config.tokens, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    levels = len(config.unet_channels)
    with seeded(config.seed, "fit-decoder", "unet"):
        text_encoder = CLIPTextModel(text)
        unet = UNet2DConditionModel(
            sample_size=config.resolution // 2 ** (len(config.vae_channels) - 1), in_channels=4, out_channels=4,
            block_out_channels=config.unet_channels, layers_per_block=1, cross_attention_dim=config.text_width,
            norm_num_groups=math.gcd(32, *config.unet_channels),
            down_block_types=("CrossAttnDownBlock2D",) * levels, up_block_types=("CrossAttnUpBlock2D",) * levels,
        )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def fit_unet(
    pipeline: StableDiffusionPipeline, latents: Latents, captions: Sequence[str], weights: torch.Tensor,
    config: FitDecoderConfig, work: Path, device: torch.device,
) -> float:  # fmt: skip
    """Trains text transformer and U-Net by v-prediction (Salimans & Ho 2022); leaves their moving average in the pipeline."""
    from diffusers import DDPMScheduler

    text, unet, scale = (
        pipeline.text_encoder.to(device),
        pipeline.unet.to(device),
        pipeline.vae.config.scaling_factor,
    )
    unet.to(memory_format=torch.channels_last)
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    texts = sorted({t.format(c) for c in captions for t in config.templates} | {""})
    ids = pipeline.tokenizer(
        texts, padding="max_length", truncation=True, max_length=config.tokens, return_tensors="pt"
    ).input_ids
    row_of = {t: i for i, t in enumerate(texts)}
    often: Counter[str] = Counter()
    for caption, weight in zip(captions, weights.tolist(), strict=True):
        often[caption] += weight
    shown = [config.templates[-1].format(caption) for caption, _ in often.most_common(16)]
    fitting = Fitting(
        nn.ModuleDict({"text": text, "unet": unet}),
        work / "unet.state",
        config.unet_steps,
        config.unet_lr,
        config.ema,
    )
    # PyTorch's fused attention is slow on a CPU in bfloat16: its backward pass took 44 % of a step.
    plain = device.type == "cpu"
    start = fitting.step
    for step in progress(
        range(start, config.unet_steps), total=config.unet_steps, done=start, what="u-net", unit="step"
    ):
        rows, g = draw(weights, config, "unet", step)
        template = torch.randint(len(config.templates), (config.batch,), generator=g).tolist()
        dropped = (torch.rand(config.batch, generator=g) < config.drop_caption).tolist()
        prompts = [
            "" if d else config.templates[t].format(captions[r])
            for r, t, d in zip(rows.tolist(), template, dropped, strict=True)
        ]
        posterior = [part[rows].float() for part in (latents.mean, latents.std)]
        z = (posterior[0] + posterior[1] * torch.randn(posterior[0].shape, generator=g)) * scale
        noise = torch.randn(z.shape, generator=g)
        t = torch.randint(noising.config.num_train_timesteps, (config.batch,), generator=g)
        noisy, target = noising.add_noise(z, noise, t), noising.get_velocity(z, noise, t)
        with (
            torch.autocast(device.type, dtype=torch.bfloat16),
            sdpa_kernel(SDPBackend.MATH) if plain else nullcontext(),
        ):
            context = text(ids[[row_of[p] for p in prompts]].to(device)).last_hidden_state
            predicted = unet(noisy.to(device), t.to(device), context).sample
        fitting.update((predicted.float() - target.to(device)).square().mean())
        if fitting.step % config.save_every == 0 or fitting.step == config.unet_steps:
            fitting.save()
            with fitting.averaged():
                sample_grid(pipeline, shown, work / "samples" / f"{fitting.step:07}.png")
    fitting.finish()
    return fitting.loss


def sample_grid(pipeline: StableDiffusionPipeline, prompts: Sequence[str], file: Path) -> None:
    """Draws one picture for every prompt, always from the same noise, into one PNG."""
    from diffusers.utils import make_image_grid

    pipeline.set_progress_bar_config(disable=True)
    noise = [generator(0, "grid", i) for i in range(len(prompts))]
    drawn = pipeline(list(prompts), generator=noise, num_inference_steps=15, guidance_scale=3.0).images
    columns = math.ceil(len(drawn) ** 0.5)
    blank = [Image.new("RGB", drawn[0].size)] * (-len(drawn) % columns)
    buffer = io.BytesIO()
    make_image_grid(drawn + blank, rows=-(-len(drawn) // columns), cols=columns).save(buffer, "PNG")
    write_bytes(file, buffer.getvalue())


def to_signed(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 in [-1, 1], the VAE's range."""
    return images.float() / 127.5 - 1
