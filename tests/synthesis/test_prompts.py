"""The prompts that a decoder learns are those that it will be asked with: whole, or one vector for a name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from oodream.core.types import ClassBook
from oodream.synthesis.fitting.prompts import Prompts, name_and_template, plain
from oodream.synthesis.fitting.tokenizer import fit_tokenizer
from oodream.synthesis.text import class_book, name_spans, spliced_ids
from tests.helpers.tiny import TINY

WIDTH = 32
CPU = torch.device("cpu")
TEMPLATES = ("{}", "a picture of a {}", "the {} there")
NAMES = ("cat", "fire engine", "hot air balloon", "owl")
MARKED = "a doodle of a {fire engine}"


class TextEncoder(nn.Module):
    """A text encoder whose states are what it reads: the rows of its input table, or what replaces them."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, WIDTH)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, ids_BL: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(ids_BL))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    captions = ["cat", "fire engine", "hot air balloon", "a doodle of a fire engine"] * 20
    return fit_tokenizer(captions, TINY, tmp_path_factory.mktemp("prompts") / "tokenizer")


@pytest.fixture(scope="module")
def encoder(tokenizer) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(len(tokenizer))


@pytest.fixture(scope="module")
def prompts(tokenizer) -> Prompts:
    return Prompts(tokenizer, [*NAMES, MARKED, *NAMES], TEMPLATES, CPU)


def encode(prompts: Prompts, encoder: TextEncoder, rows: list[int], cosine: float) -> Tensor:
    """States without noise where the cosine is 1; of whole prompts where it is 0."""
    n = len(rows)
    noise = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return prompts.encode(encoder, torch.tensor(rows), torch.full((n,), cosine), noise)


def whole(tokenizer, encoder: TextEncoder, texts: list[str]) -> Tensor:
    """What the text encoder makes of plain texts."""
    ids = tokenizer(texts, padding="max_length", max_length=TINY.tokens, return_tensors="pt").input_ids
    return encoder(ids).last_hidden_state.detach()


def books(tokenizer, encoder: TextEncoder, template: str) -> tuple[ClassBook, Tensor, Tensor]:
    """T(y), prompts with the name's run as one token, and its position, as a run makes them."""
    texts = [template.format(name) for name in NAMES]
    spans = name_spans(NAMES, texts, template)
    book = class_book(tokenizer, encoder, NAMES, texts, spans=spans)
    return book, *spliced_ids(tokenizer, book, spans)


def test_the_names_have_one_and_several_tokens(tokenizer):
    lengths = [len(tokenizer(name, add_special_tokens=False).input_ids) for name in NAMES]
    assert min(lengths) == 1
    assert max(lengths) >= 3


@pytest.mark.parametrize("number", range(len(TEMPLATES)))
def test_whole_prompts_are_those_of_the_templates(prompts, tokenizer, encoder, number):
    rows = [prompts.row(name, number) for name in NAMES]
    expected = whole(tokenizer, encoder, [TEMPLATES[number].format(name) for name in NAMES])
    assert torch.equal(encode(prompts, encoder, rows, cosine=0), expected)


@pytest.mark.parametrize("number", range(len(TEMPLATES)))
def test_spliced_prompts_are_those_that_a_run_decodes(prompts, tokenizer, encoder, number):
    """The ids of `spliced_ids`, and `class_book`'s T(y) in the place of the name."""
    book, ids, position = books(tokenizer, encoder, TEMPLATES[number])
    states = encode(prompts, encoder, [prompts.row(name, number) for name in NAMES], cosine=1)
    expected = encoder.table(ids).detach()
    expected[torch.arange(len(NAMES)), position] = book.tokens_CD
    torch.testing.assert_close(states, expected)


def test_whole_and_spliced_prompts_share_a_batch(prompts, encoder):
    rows = [prompts.row("fire engine", 1)] * 2
    with torch.no_grad():
        both = prompts.encode(encoder, torch.tensor(rows), torch.tensor([0.0, 1.0]), torch.zeros(2, WIDTH))
    torch.testing.assert_close(both[:1], encode(prompts, encoder, rows[:1], cosine=0))
    torch.testing.assert_close(both[1:], encode(prompts, encoder, rows[:1], cosine=1))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("cosine", [0.5, 0.8])
def test_noise_has_the_mean_cosine_and_keeps_the_norm(prompts, tokenizer, encoder, cosine):
    book, _, position = books(tokenizer, encoder, TEMPLATES[1])
    c = NAMES.index("fire engine")
    states = encode(prompts, encoder, [prompts.row("fire engine", 1)] * 3000, cosine)
    vectors, others = states[:, position[c]], states[:, [i for i in range(TINY.tokens) if i != position[c]]]
    cosines = torch.cosine_similarity(vectors, book.tokens_CD[c], dim=1)
    assert cosines.mean().item() == pytest.approx(cosine, abs=0.02)
    assert cosines.std() > 0.02, "the noise is each prompt's own"
    torch.testing.assert_close(vectors.norm(dim=1), book.tokens_CD[c].norm().expand(3000))
    assert torch.equal(others, others[:1].expand_as(others)), "no other token has noise"


def test_the_empty_prompt_is_never_a_vector(prompts, tokenizer, encoder):
    for cosine in (0.0, 1.0):
        states = encode(prompts, encoder, [prompts.empty], cosine)
        assert torch.equal(states, whole(tokenizer, encoder, [""]))


def test_a_caption_with_a_mark_is_a_prompt_of_its_own(prompts, tokenizer, encoder):
    rows = [prompts.row(MARKED, number) for number in range(len(TEMPLATES))]
    expected = whole(tokenizer, encoder, ["a doodle of a fire engine"])
    assert torch.equal(encode(prompts, encoder, rows, cosine=0), expected.expand(len(rows), -1, -1))
    book, ids, position = books(tokenizer, encoder, "a doodle of a {}")
    c = NAMES.index("fire engine")
    spliced = encode(prompts, encoder, rows, cosine=1)
    torch.testing.assert_close(spliced[:, position[c]], book.tokens_CD[c].expand(len(rows), -1))
    before = encoder.table(ids[c, : position[c]]).detach()
    torch.testing.assert_close(spliced[:, : position[c]], before.expand(len(rows), -1, -1))


@pytest.mark.parametrize(
    ("caption", "expected", "text"),
    [
        ("cat", ("cat", ""), "cat"),
        ("a doodle of a {cat}", ("cat", "a doodle of a {}"), "a doodle of a cat"),
        ("{cat}", ("cat", "{}"), "cat"),
        ("a {fire engine} here", ("fire engine", "a {} here"), "a fire engine here"),
        ("a smile :-{", ("a smile :-{", ""), "a smile :-{"),
        ("two {cats} and {dogs}", ("two {cats} and {dogs}", ""), "two {cats} and {dogs}"),
        ("an empty {}", ("an empty {}", ""), "an empty {}"),
    ],
)
def test_what_a_caption_names(caption, expected, text):
    assert name_and_template(caption) == expected
    assert plain(caption) == text


def test_a_caption_that_is_too_long_is_cut_and_never_a_vector(tokenizer, encoder):
    long = " ".join(["hot air balloon"] * 20)
    prompts = Prompts(tokenizer, ["cat", long], TEMPLATES, CPU)
    rows = [prompts.row(long, 1)]
    ids = tokenizer(TEMPLATES[1].format(long), truncation=True, max_length=TINY.tokens).input_ids
    assert len(ids) == TINY.tokens
    for cosine in (0.0, 0.7, 1.0):
        assert torch.equal(
            encode(prompts, encoder, rows, cosine), encoder.table(torch.tensor([ids])).detach()
        )


def test_a_name_that_a_template_gives_another_ending_is_never_a_vector(tokenizer, encoder):
    prompts = Prompts(tokenizer, ["cat"], ("{}", "two {}s"), CPU)
    expected = whole(tokenizer, encoder, ["two cats"])
    for cosine in (0.0, 1.0):
        assert torch.equal(encode(prompts, encoder, [prompts.row("cat", 1)], cosine), expected)


def test_the_table_learns_from_spliced_prompts(prompts, tokenizer, encoder):
    """T(y) is made of the table's rows at every step, so the rows of a name's tokens have gradients."""
    row = torch.tensor([prompts.row("hot air balloon", 1)])
    encoder.zero_grad()
    states = prompts.encode(encoder, row, torch.ones(1), torch.zeros(1, WIDTH))
    _, _, position = books(tokenizer, encoder, TEMPLATES[1])
    states[0, position[NAMES.index("hot air balloon")]].sum().backward()
    learnt = encoder.table.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert learnt == sorted(set(tokenizer("hot air balloon", add_special_tokens=False).input_ids))
