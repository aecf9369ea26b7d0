"""Class vectors and the splice, on a real tokenizer and text transformer."""

from __future__ import annotations

import pytest
import torch

from oodream.core.errors import DataError
from oodream.core.options import ConfigError
from oodream.data.classes import prompts_for
from oodream.synthesis.text import (
    PromptError,
    check_prompt,
    class_book,
    locate,
    name_spans,
    scaled,
    spliced,
    spliced_ids,
)


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
        ("circle " * 30, "a {} b", "Shorten the class names"),
        ("\u732b\u732b", "a picture of {}", "does not know"),
    ],
)
def test_names_that_do_not_fit_are_refused(parts, name, prompt, reason):
    tokenizer, encoder = parts
    with pytest.raises(PromptError, match=reason):
        class_book(tokenizer, encoder, [name], [prompt.format(name.strip())])


def test_all_names_that_do_not_fit_are_said_at_once(parts):
    tokenizer, encoder = parts
    long = ["circle " * 30 + "a", "star", "circle " * 30 + "b"]
    with pytest.raises(PromptError, match=r"have more: 'circle .*, 'circle .*\. Shorten the class names"):
        class_book(tokenizer, encoder, long, [f"a {name}" for name in long])
    names, prompts = ["circle", "star"], ["a square", "a red one"]
    with pytest.raises(PromptError, match=r"'circle' does not occur .* 'star' does not occur"):
        name_spans(names, prompts)
    with pytest.raises(PromptError, match=r"'circle' does not occur .* 'star' does not occur"):
        class_book(tokenizer, encoder, names, prompts, spans=[(2, 8), (2, 5)])
    with pytest.raises(DataError, match=r"'dig', which is no class.* hold their class's name 'circle'"):
        prompts_for(names, {"dig": "dig", "circle": "ring"})


def test_a_refused_name_is_told_where_another_is_written(parts):
    tokenizer, encoder = parts
    with pytest.raises(PromptError) as error:
        class_book(tokenizer, encoder, ["\u732b\u732b"], ["a picture of \u732b\u732b"])
    assert "classes.toml into the data folder" in str(error.value)
    assert str(error.value).endswith(', as "\u732b\u732b" = "another name".')


def test_all_names_that_are_refused_are_told_at_once(parts):
    tokenizer, encoder = parts
    with pytest.raises(PromptError) as error:
        class_book(tokenizer, encoder, ["", "\u732b", "circle", "\u72ac"])
    said = str(error.value)
    assert "The class name '' holds no word." in said
    assert "does not know the class names '\u732b', '\u72ac'. Give them other names:" in said
    assert "circle" not in said


PLAIN = "a photo of a {} on a plain background"  # "plain" is a class of CIFAR-100's, too


class SlowTokenizer:
    """A tokenizer that counts tokens and knows no offsets."""

    is_fast = False

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, text, **options):
        assert "return_offsets_mapping" not in options
        return self.tokenizer(text, **options)


def words_at(spans, prompts) -> list[str]:
    return [prompt[start:stop] for (start, stop), prompt in zip(spans, prompts, strict=True)]


@pytest.mark.parametrize("template", [PLAIN, "on a plain: {}", "{}", "{}, plain and circle, a table"])
@pytest.mark.parametrize("told", [True, False], ids=["with the template", "from the names"])
def test_a_name_is_where_the_placeholder_is(template, told):
    names = ["circle", "plain", "table", "star"]
    prompts = [template.format(name) for name in names]
    spans = name_spans(names, prompts, template if told else "")
    assert [start for start, _ in spans] == [template.index("{}")] * 4
    assert words_at(spans, prompts) == names


def test_a_template_tells_where_a_single_class_stands():
    assert name_spans(["plain"], [PLAIN.format("plain")], PLAIN) == [(13, 18)]
    assert name_spans(["image"], ["A high-quality image of the image"], "A high-quality image of the {}") == [
        (28, 33)
    ]
    assert name_spans(["kite"], ["a Red  KITE bird, a kite"], "a {}, a kite") == [(7, 11)]
    assert name_spans(["kite"], ["a kite bird kite, a kite"], "a {}, a kite") == [(12, 16)]


def test_two_equally_good_places_are_refused():
    with pytest.raises(PromptError, match=r"holds the class name 'plain' 2 times\. Say with `spans`"):
        name_spans(["plain"], [PLAIN.format("plain")])


@pytest.mark.parametrize(
    ("name", "prompt", "template"),
    [
        ("cat", "a dog, a cat", "a {}, a cat"),  # in the template alone
        ("cat", "the cat", "a {}"),  # not made with it
        ("cat", "a wildcat", "a {}"),
        ("cat", "a cats", ""),
    ],
)
def test_a_name_that_is_not_in_its_place_is_refused(name, prompt, template):
    with pytest.raises(PromptError, match="'cat' does not occur in its prompt"):
        name_spans([name], [prompt], template)


@pytest.mark.parametrize("slow", [False, True], ids=["offsets", "token counts"])
def test_the_vector_takes_the_placeholders_place(parts, slow):
    tokenizer, encoder = parts
    tokenizer = SlowTokenizer(tokenizer) if slow else tokenizer
    template = "a blue  {} on a red star circle"
    names = ["circle", "star", "red star"]
    prompts = [template.format(name) for name in names]
    place = len(tokenizer("a blue").input_ids) - 1  # the beginning's token counts, the end's does not
    spans = [(8, 8 + len(name)) for name in names]
    for given in (spans, []):
        book = class_book(tokenizer, encoder, names, prompts, spans=given)
        ids, position = spliced_ids(tokenizer, book, given)
        assert position.tolist() == [place] * 3
        for row, prompt, name in zip(ids.tolist(), prompts, names, strict=True):
            before = tokenizer("a blue").input_ids[:-1]
            behind = tokenizer(prompt[8 + len(name) :], add_special_tokens=False).input_ids
            assert row[:place] == before
            assert row[place + 1 : place + 1 + len(behind)] == behind


def test_a_span_may_name_any_occurrence(parts):
    tokenizer, _ = parts
    prompt = "circle star circle star"
    for span, start in (((0, 6), 1), ((7, 11), 2), ((12, 18), 3), ((19, 23), 4)):
        ids, *run = locate(tokenizer, prompt[slice(*span)], prompt, span)
        assert run == [start, start + 1]
        assert ids == tokenizer(prompt).input_ids


@pytest.mark.parametrize("span", [(0, 4), (13, 14), (20, 26), (90, 96)])
@pytest.mark.parametrize("slow", [False, True], ids=["offsets", "token counts"])
def test_a_span_of_other_words_is_refused(parts, span, slow):
    tokenizer = SlowTokenizer(parts[0]) if slow else parts[0]
    with pytest.raises(PromptError, match=r"'circle' does not occur in its prompt .* as words of their own"):
        locate(tokenizer, "circle", "star circle, a star circles", span)


@pytest.mark.parametrize(
    "template", ["a {}", "{}", "a {}, {", "}{}", "a {} on a {surface}", "{} {}", "", "{0}", "{{}}"]
)
def test_a_prompt_has_one_placeholder_and_no_other_brace(template):
    if template in ("a {}", "{}"):
        check_prompt(template)
        return
    with pytest.raises(ConfigError, match=r"^decode\.prompt needs \{\} once"):
        check_prompt(template)
    with pytest.raises(ConfigError, match=r"^templates needs"):
        check_prompt(template, "templates")
