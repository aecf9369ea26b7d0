"""Class vectors and the splice, on a real tokenizer and text transformer."""

from __future__ import annotations

import pytest
import torch

from oodream.synthesis.text import PromptError, class_book, locate, scaled, spliced, spliced_ids


@pytest.fixture(scope="module")
def parts(tiny_pipeline):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        tiny_pipeline, safety_checker=None, requires_safety_checker=False
    )
    return pipe.tokenizer, pipe.text_encoder.eval()


@torch.no_grad()
def splice(encoder, ids: torch.Tensor, position: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The text states of prompts with vectors in the class word's place."""
    with spliced(encoder, position, v):
        return encoder(ids).last_hidden_state


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
    torch.testing.assert_close(
        book.tokens_CD[0], rows.mean(0) / rows.mean(0).norm() * rows.norm(dim=1).mean()
    )


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
                    book.prompts[c],
                    padding="max_length",
                    max_length=tokenizer.model_max_length,
                    return_tensors="pt",
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
