"""Class vectors and the splice, on a real tokenizer and text transformer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from oodream.decoders.stable import DecoderError, StableDecoder
from oodream.text import PromptError, class_book, locate, scaled, splice, spliced_ids
from oodream.types import ClassBook


@pytest.fixture(scope="module")
def parts(tiny_pipeline):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None, requires_safety_checker=False)
    return pipe.tokenizer, pipe.text_encoder.eval()


def table(encoder) -> torch.Tensor:
    return encoder.get_input_embeddings().weight


def test_single_token_class_vector_is_its_table_row(parts):
    tokenizer, encoder = parts
    book = class_book(tokenizer, encoder, ["circle", "star"])
    for name, vector in zip(book.names, book.tokens_CD, strict=True):
        (token,) = tokenizer(name, add_special_tokens=False).input_ids
        torch.testing.assert_close(vector, table(encoder)[token].detach())


def test_multi_token_class_vector_is_the_mean_at_the_mean_norm(parts):
    tokenizer, encoder = parts
    book = class_book(tokenizer, encoder, ["red star"])
    rows = table(encoder)[tokenizer("red star", add_special_tokens=False).input_ids].detach()
    assert len(rows) == 2
    torch.testing.assert_close(book.tokens_CD[0], rows.mean(0) / rows.mean(0).norm() * rows.norm(dim=1).mean())


def test_every_class_word_lies_in_its_prompt(parts):
    tokenizer, encoder = parts
    book = class_book(tokenizer, encoder, ["circle", "red star", "blue square"])
    for name, prompt in zip(book.names, book.prompts, strict=True):
        ids, start, stop = locate(tokenizer, name, prompt)
        assert ids[start:stop] == tokenizer(name, add_special_tokens=False).input_ids


def test_splice_equals_overwriting_the_table_row(parts):
    """The published code overwrites the word's row, encodes the prompt, and restores the row."""
    tokenizer, encoder = parts
    book = class_book(tokenizer, encoder, ["circle", "star"])
    ids, position = spliced_ids(tokenizer, book)
    v = torch.randn(2, book.tokens_CD.shape[1], generator=torch.Generator().manual_seed(1))
    ours = splice(encoder, ids, position, v)
    weight = table(encoder)
    for c, name in enumerate(book.names):
        (token,) = tokenizer(name, add_special_tokens=False).input_ids
        with torch.no_grad():
            kept = weight[token].clone()
            weight[token] = v[c]
            theirs = encoder(
                tokenizer(
                    book.prompts[c], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
                ).input_ids
            ).last_hidden_state[0]
            weight[token] = kept
        torch.testing.assert_close(ours[c], theirs, atol=1e-5, rtol=1e-5)


def test_splice_changes_the_states_and_not_the_weights(parts):
    tokenizer, encoder = parts
    book = class_book(tokenizer, encoder, ["circle"])
    ids, position = spliced_ids(tokenizer, book)
    before = table(encoder).clone()
    same = splice(encoder, ids, position, book.tokens_CD)
    other = splice(encoder, ids, position, -book.tokens_CD)
    with torch.no_grad():
        plain = encoder(ids).last_hidden_state
    torch.testing.assert_close(same, plain)
    assert (other - plain).abs().max() > 1e-3
    assert torch.equal(table(encoder), before)
    assert not encoder.get_input_embeddings()._forward_hooks


def test_spliced_multi_token_name_takes_one_position(parts):
    tokenizer, encoder = parts
    book = class_book(tokenizer, encoder, ["star", "red star"])
    ids, _ = spliced_ids(tokenizer, book)
    eos = tokenizer.eos_token_id
    lengths = [(row.tolist()[1:].index(eos)) for row in ids]
    assert lengths[0] == lengths[1]


def test_scaled_has_the_class_vectors_norm():
    z = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    t = torch.randn(5, 8) * 0.4
    torch.testing.assert_close(scaled(z, t).norm(dim=1), t.norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(scaled(z, t), z), torch.ones(5))


@pytest.mark.parametrize(
    ("name", "prompt", "reason"),
    [
        ("circle", "a picture of a dog", "does not occur"),
        ("", "a picture", "holds no word"),
        ("circle " * 30, "a {} b", "tokens and the decoder reads"),
        ("\u732b\u732b", "a picture of {}", "does not know"),
    ],
)
def test_names_that_do_not_fit_are_refused(parts, name, prompt, reason):
    tokenizer, encoder = parts
    with pytest.raises(PromptError, match=reason):
        class_book(tokenizer, encoder, [name], [prompt.format(name.strip())])


def test_decoder_draws_the_same_image_alone_or_in_company(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle", "star"], steps=3, tile=4)
    z = torch.nn.functional.normalize(
        torch.randn(7, decoder.book.tokens_CD.shape[1], generator=torch.Generator().manual_seed(0)), dim=1
    )
    y, seed = torch.arange(7) % 2, torch.arange(7) + 100
    together = decoder(z, y, seed).images_B3HW
    alone = torch.cat([decoder(z[i : i + 1], y[i : i + 1], seed[i : i + 1]).images_B3HW for i in range(7)])
    backwards = decoder(z.flip(0), y.flip(0), seed.flip(0)).images_B3HW.flip(0)
    assert torch.equal(together, alone)
    assert torch.equal(together, backwards)
    assert together.dtype == torch.uint8
    assert together.shape == (7, 3, 32, 32)


def test_decoded_image_depends_on_its_vector_and_seed(tiny_pipeline):
    """Fails when the splice is removed."""
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=3, tile=4, guidance=5.0)
    z = torch.nn.functional.normalize(
        torch.randn(2, decoder.book.tokens_CD.shape[1], generator=torch.Generator().manual_seed(3)), dim=1
    )
    y = torch.zeros(2, dtype=torch.long)
    same_noise = decoder._denoise(*_states(decoder, z, y), torch.tensor([5, 5]))
    assert not torch.equal(same_noise[0], same_noise[1])
    images = decoder(z[:1].expand(2, -1), y, torch.tensor([1, 2])).images_B3HW
    assert not torch.equal(images[0], images[1])


def _states(decoder: StableDecoder, z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor]:
    v = scaled(z, decoder.book.tokens_CD[y])
    return (splice(decoder.pipeline.text_encoder, decoder._ids_CL[y], decoder._position_C[y], v),)


def test_book_is_the_one_list(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle", "star"])
    assert isinstance(decoder.book, ClassBook)
    assert decoder.book.names == ("circle", "star")
    assert decoder.fingerprint in decoder.book.space


def test_images_leave_at_the_size_asked_for(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2, size=24)
    assert decoder.resolution == 32
    assert decoder.plain(["a circle"], torch.tensor([0])).shape == (1, 3, 24, 24)
    flat = torch.full((1, 3, 24, 24), 90, dtype=torch.uint8)
    assert decoder.reconstruct(flat).shape == (1, 3, 24, 24)


def test_reconstruction_is_the_vae_there_and_back(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], tile=2)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vae = decoder.pipeline.vae
    with torch.no_grad():
        expected = vae.decode(vae.encode(images.float() / 127.5 - 1).latent_dist.mean).sample
    off = (decoder.reconstruct(images).float() - ((expected.clamp(-1, 1) + 1) * 127.5)).abs()
    assert off.max() < 0.6


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
    with pytest.raises(DecoderError, match="safetensors"):
        StableDecoder(str(folder), names=["circle"])
