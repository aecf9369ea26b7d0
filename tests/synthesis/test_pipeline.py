"""Pipelines are loaded as they lie on disks: whole, in shards, as variants; and what is missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from oodream.core.files import ASSETS
from oodream.models.classifier import load_classifier
from oodream.synthesis.decoders.stable import StableDecoder, pipeline_hash
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.pipeline import EMBEDDED, load_pipeline, variant_of
from tests.helpers.guarded import classifier

CPU = torch.device("cpu")


@pytest.mark.parametrize("missing", ["vae", "unet", "text_encoder", "tokenizer", "model_index.json"])
def test_a_decoder_with_a_missing_part_is_refused(tiny_pipeline, tmp_path, missing):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "broken"))
    shutil.rmtree(folder / missing) if (folder / missing).is_dir() else (folder / missing).unlink()
    with pytest.raises(DecoderError, match=r"cannot be loaded|not a diffusers pipeline"):
        StableDecoder(str(folder), names=["circle"])


def test_a_pickled_checkpoint_is_refused(tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "pickled"))
    weights = next((folder / "unet").glob("*.safetensors"))
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(DecoderError, match=r"weights of unet are missing or pickled.*save_pretrained"):
        load_pipeline(str(folder), CPU)


def without(folder: Path, part: str, ndim: int) -> Path:
    """A copy of the embedded decoder in which one weight is called otherwise."""
    shutil.copytree(EMBEDDED, folder)
    file = next((folder / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == ndim)
    tensors[f"of.another.{name}"] = tensors.pop(name)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_weights_that_are_not_in_the_files_are_named(tmp_path, part, ndim):
    """As where an older library reads what a newer one wrote: it would draw them at random."""
    with pytest.raises(DecoderError, match=rf"{part} lacks 1 of the .*such as .*pip install -U"):
        load_pipeline(str(without(tmp_path / "renamed", part, ndim)), CPU)


def test_a_pipeline_of_another_family_is_refused(tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "other"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    with pytest.raises(
        DecoderError, match=r"holds a FluxPipeline, and one of these is needed: StableDiffusionPipeline"
    ):
        StableDecoder(str(folder), names=["circle"])


def test_a_text_encoder_without_a_token_table_is_refused(tiny_pipeline, monkeypatch):
    from transformers import CLIPTextModel

    monkeypatch.setattr(CLIPTextModel, "get_input_embeddings", lambda self: None)
    with pytest.raises(DecoderError, match="has no token table"):
        StableDecoder(str(tiny_pipeline), names=["circle"])


@pytest.fixture(scope="module")
def half(tiny_pipeline):
    """The tiny pipeline in half precision."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(tiny_pipeline, dtype=torch.float16)


def rename_variant(part: Path, old: str, new: str) -> None:
    for file in part.glob(f"*.{old}*"):
        file.rename(file.with_name(file.name.replace(f".{old}", f".{new}" if new else "")))


def test_a_variant_is_read_where_there_is_nothing_else(half, tmp_path):
    half.save_pretrained(tmp_path / "plain")
    half.save_pretrained(tmp_path / "fp16", variant="fp16")
    half.save_pretrained(tmp_path / "shards", variant="fp16", max_shard_size="50KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*.fp16-*-of-*.safetensors"))) > 1
    rename_variant(Path(shutil.copytree(tmp_path / "fp16", tmp_path / "both")) / "vae", "fp16", "")
    rename_variant(Path(shutil.copytree(tmp_path / "fp16", tmp_path / "other")) / "vae", "fp16", "fp16")
    expected = pipeline_hash(load_pipeline(str(tmp_path / "plain"), CPU))
    for name, variant in (("plain", None), ("fp16", "fp16"), ("shards", "fp16"), ("both", "fp16")):
        assert variant_of(tmp_path / name) == variant, name
        assert pipeline_hash(load_pipeline(str(tmp_path / name), CPU)) == expected, name


def test_ordinary_weights_come_before_variants(half, tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "all"))
    half.save_pretrained(folder, variant="non_ema")
    assert variant_of(folder) is None
    rename_variant(folder / "unet", "non_ema", "fp16")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert variant_of(folder) == "fp16"


def test_parts_without_a_common_variant_are_named(half, tmp_path):
    half.save_pretrained(tmp_path / "d", variant="fp16")
    rename_variant(tmp_path / "d" / "vae", "fp16", "bf16")
    with pytest.raises(
        DecoderError, match=r"no common variant \(text_encoder: fp16; unet: fp16; vae: bf16\)"
    ):
        load_pipeline(str(tmp_path / "d"), CPU)


def test_a_safety_checker_that_is_not_there_is_not_missed(tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "d"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": True,
    }))  # fmt: skip
    pipeline = load_pipeline(str(folder), CPU)
    assert pipeline.safety_checker is pipeline.feature_extractor is None
    assert pipeline_hash(pipeline) == pipeline_hash(load_pipeline(str(tiny_pipeline), CPU))


class Hub:
    """In place of diffusers' own: one repository, someone/decoder, whose files are those of a folder.

    `fetched` are the variants of which it has sent weights.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from diffusers import DiffusionPipeline

        self.folder, self.fetched = folder, []
        self.load_config = DiffusionPipeline.load_config
        monkeypatch.setattr(DiffusionPipeline, "load_config", self.config)
        monkeypatch.setattr(DiffusionPipeline, "download", self.download)

    def config(self, source: str | Path, **options: Any) -> Any:
        return self.load_config(self.folder if source == "someone/decoder" else source, **options)

    def download(self, source: str, *, variant: str | None = None, **options: Any) -> str:
        assert source == "someone/decoder"
        assert options["use_safetensors"]
        assert options["safety_checker"] is None
        ending = f".{variant}.safetensors" if variant else "model.safetensors"
        if not [*self.folder.glob(f"unet/*{ending}")]:
            raise OSError("It has no such weights.")
        self.fetched.append(variant)
        return str(self.folder)


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
def test_a_hub_pipeline_is_read_as_fp16_where_it_has_no_other_weights(half, tmp_path, monkeypatch, variant):
    half.save_pretrained(tmp_path, variant=variant)
    hub = Hub(tmp_path, monkeypatch)
    if variant == "bf16":
        with pytest.raises(DecoderError, match=r"someone/decoder cannot be loaded: It has no such weights"):
            load_pipeline("someone/decoder", CPU)
    else:
        assert load_pipeline("someone/decoder", CPU).unet.dtype == torch.float32
        assert hub.fetched == [variant]


def test_a_hub_pipeline_is_checked_as_a_folder_is(tmp_path, monkeypatch):
    """Before its weights are fetched what it is, and then whether these are whole."""
    hub = Hub(without(tmp_path / "decoder", "unet", ndim=1), monkeypatch)
    with pytest.raises(DecoderError, match="unet lacks 1 of the weights"):
        load_pipeline("someone/decoder", CPU)
    assert hub.fetched == [None]
    index = hub.folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["elsewhere", "Network"]}))
    with pytest.raises(DecoderError, match="someone/decoder: its part 'unet'"):
        load_pipeline("someone/decoder", CPU)
    assert hub.fetched == [None]


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "../x", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_named(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DecoderError, match="There is no decoder folder"):
        load_pipeline(source, CPU)


def test_the_hash_is_of_weights_and_words(tiny_pipeline, tmp_path):
    pipeline = load_pipeline(str(tiny_pipeline), CPU)
    first = pipeline_hash(pipeline)
    assert first == pipeline_hash(load_pipeline(str(tiny_pipeline), CPU))
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias[0] += 1e-3
    assert pipeline_hash(pipeline) != first
    pipeline = load_pipeline(str(tiny_pipeline), CPU)
    pipeline.tokenizer.add_tokens(["somethingelse"])
    assert pipeline_hash(pipeline) != first


def test_networks_that_other_threads_make_meanwhile_have_weights(tmp_path: Path) -> None:
    """While diffusers loads a pipeline, modules that are made have no memory, whoever makes them."""
    classifier().save(tmp_path / "c")
    loading = Thread(target=lambda: [load_pipeline(str(ASSETS / "decoder"), CPU) for _ in range(2)])
    loading.start()
    made = 0
    while loading.is_alive():
        network = load_classifier(tmp_path / "c").network
        assert not any(weight.is_meta for weight in network.parameters())
        made += 1
    loading.join()
    assert made > 0
