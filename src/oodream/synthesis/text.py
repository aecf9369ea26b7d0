"""The text side of a Stable Diffusion pipeline: class vectors from its input token table, and the splice that uses them.

A class name is one contiguous run of tokens in its prompt. Its vector T(y) is the mean of that run's rows, at the rows'
mean norm: for a name of a single token (the papers' case) the row itself. A spliced vector takes the whole run's place,
in one position. Where the run lies is given in characters ("spans"), because a prompt may hold the name's words twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..config import PROMPT as TEMPLATE
from ..core.options import ConfigError
from ..core.types import ClassBook

__all__ = [
    "Conditioning",
    "PromptError",
    "Span",
    "TextSide",
    "check_prompt",
    "class_book",
    "locate",
    "name_spans",
    "scaled",
    "spliced",
    "spliced_ids",
]

Span = tuple[int, int]
"""the characters [start, stop) of a class name in its prompt"""


class PromptError(ValueError):
    """A class name and a prompt do not fit together; the message names both."""


def check_prompt(template: str, key: str = "decode.prompt") -> None:
    """Raises ConfigError, naming `key`, unless the template holds {} once and no other brace."""
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ConfigError(
            f"{key} needs {{}} once, where the class name goes, and no other brace; not {template!r}."
        )


def name_spans(names: Sequence[str], prompts: Sequence[str], template: str = "") -> list[Span]:
    """Where each class name stands in its prompt, as a whole word and in any case.

    A prompt may hold the name more than once. The `template` that the prompts were made with says where its {} was filled;
    of what was filled in there the first occurrence counts. Without a template the prompts are taken to come from one that
    is not known: the occurrence counts whose text before and text behind most of the prompts share.

    Raises PromptError for a name that its prompt does not hold there, and where two occurrences are equally good.
    """
    occurrences = [_occurrences(*pair) for pair in zip(names, prompts, strict=True)]
    if template:
        head, tail = template.split("{}")
        occurrences = [
            [(a, b) for a, b in spans if a >= len(head) and b <= len(prompt) - len(tail)][:1]
            for spans, prompt in zip(occurrences, prompts, strict=True)
        ]
    shared = Counter(
        text
        for spans, prompt in zip(occurrences, prompts, strict=True)
        for text in {text for span in spans for text in _around(prompt, span)}
    )
    found = []
    for name, prompt, spans in zip(names, prompts, occurrences, strict=True):
        if not spans:
            place = f" in the place of {{}} in {template!r}" if template else ""
            raise PromptError(f"The class name {name!r} does not occur in its prompt {prompt!r}{place}.")
        votes = [sum(shared[text] for text in _around(prompt, span)) for span in spans]
        if votes.count(max(votes)) > 1:
            raise PromptError(
                f"The prompt {prompt!r} holds the class name {name!r} {len(spans)} times. Say with `spans` which of them "
                f"is meant, or word the prompt otherwise."
            )
        found.append(spans[votes.index(max(votes))])
    return found


def _occurrences(name: str, prompt: str) -> list[Span]:
    words = r"\s+".join(map(re.escape, name.split()))
    return [match.span() for match in re.finditer(rf"(?<!\w){words}(?!\w)", prompt, re.IGNORECASE)]


def _around(prompt: str, span: Span) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("before", prompt[: span[0]]), ("behind", prompt[span[1] :])


def class_book(
    tokenizer: Any,
    text_encoder: Any,
    names: Sequence[str],
    prompts: Sequence[str] = (),
    space: str = "",
    spans: Sequence[Span] = (),
) -> ClassBook:
    """T(y) for every class (DREAM-OOD, section 3.1): rows of the input token table, float32 (C, D), as they are.

    Raises PromptError for a name without tokens, unknown to the tokenizer, absent from its prompt, or past the prompt's end,
    and where `name_spans` does if no `spans` are given.
    """
    prompts, spans = _with_spans(names, prompts, spans)
    table = text_encoder.get_input_embeddings().weight.detach().float().cpu()
    tokens = []
    for ids, start, stop in _located(tokenizer, names, prompts, spans):
        rows = table[ids[start:stop]]
        tokens.append(normalize(rows.mean(0), dim=0) * rows.norm(dim=1).mean())
    return ClassBook(names=tuple(names), prompts=prompts, tokens_CD=torch.stack(tokens), space=space)


def _with_spans(
    names: Sequence[str], prompts: Sequence[str], spans: Sequence[Span]
) -> tuple[tuple[str, ...], Sequence[Span]]:
    """The prompts, or those of the default template with their spans."""
    if prompts:
        return tuple(prompts), spans
    made = tuple(TEMPLATE.format(name) for name in names)
    return made, spans or name_spans(names, made, TEMPLATE)


def locate(tokenizer: Any, name: str, prompt: str, span: Span | None = None) -> tuple[list[int], int, int]:
    """The prompt's token ids, and the run [start, stop) in them that is the class name at the characters `span`.

    Raises PromptError as `class_book` does.
    """
    (located,) = _located(tokenizer, [name], [prompt], [] if span is None else [span])
    return located


def _located(
    tokenizer: Any, names: Sequence[str], prompts: Sequence[str], spans: Sequence[Span]
) -> list[tuple[list[int], int, int]]:
    words = [_word(tokenizer, name) for name in names]
    spans = spans or name_spans(names, prompts)
    located = []
    for name, prompt, span, word in zip(names, prompts, spans, words, strict=True):
        ids, start = _run(tokenizer, prompt, span)
        if len(ids) > tokenizer.model_max_length:
            raise PromptError(
                f"The prompt {prompt!r} has {len(ids)} tokens and the decoder reads {tokenizer.model_max_length}. "
                f"Shorten the class name {name!r}, or decode.prompt."
            )
        if ids[start : start + len(word)] != word:
            raise PromptError(
                f"The class name {name!r} does not occur in its prompt {prompt!r} as words of their own."
            )
        located.append((ids, start, start + len(word)))
    return located


def _word(tokenizer: Any, name: str) -> list[int]:
    """The name's own tokens."""
    word: list[int] = tokenizer(name, add_special_tokens=False).input_ids
    if not word:
        raise PromptError(f"The class name {name!r} holds no word. Give it a name in classes.toml.")
    if tokenizer.unk_token_id in word:
        raise PromptError(
            f"The decoder's tokenizer does not know the class name {name!r}. Give it another name in classes.toml."
        )
    return word


def _run(tokenizer: Any, prompt: str, span: Span) -> tuple[list[int], int]:
    """The prompt's ids, and the position of the first that belongs to the characters `span`."""
    if getattr(tokenizer, "is_fast", False):
        encoding = tokenizer(prompt, return_offsets_mapping=True)
        inside = [a < span[1] and b > span[0] for a, b in encoding.offset_mapping]
        return encoding.input_ids, inside.index(True) if any(inside) else len(inside)
    ids, bare, before = (
        tokenizer(prompt).input_ids,
        tokenizer(prompt, add_special_tokens=False).input_ids,
        tokenizer(prompt[: span[0]], add_special_tokens=False).input_ids,
    )
    special = next(i for i in range(len(ids)) if ids[i : i + len(bare)] == bare)
    return ids, special + len(before)


def spliced_ids(tokenizer: Any, book: ClassBook, spans: Sequence[Span] = ()) -> tuple[Tensor, Tensor]:
    """Prompts as ids (C, L) with the class name's run collapsed to one token, and that token's position (C,).

    Raises PromptError as `class_book` does.
    """
    rows, positions = [], []
    for ids, start, stop in _located(tokenizer, book.names, book.prompts, spans):
        short = ids[: start + 1] + ids[stop:]
        rows.append(short + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(short)))
        positions.append(start)
    return torch.tensor(rows), torch.tensor(positions)


@contextmanager
def spliced(text_encoder: Any, position_B: Tensor, v_BD: Tensor) -> Iterator[None]:
    """Within the block, prompt b's token at `position_B` has the input embedding `v_BD`, used as it is, norm included.

    The same as overwriting that token's row of the table, for each prompt on its own and without touching the weights: the
    table's output is replaced on the way, so every text encoder with an input table works.
    """

    def exchange(module: Any, args: Any, rows_BLD: Tensor) -> Tensor:
        at_position = (
            torch.arange(rows_BLD.shape[1], device=rows_BLD.device)[None, :, None]
            == position_B[:, None, None]
        )
        return torch.where(at_position, v_BD[:, None, :].to(rows_BLD), rows_BLD)

    handle = text_encoder.get_input_embeddings().register_forward_hook(exchange)
    try:
        yield
    finally:
        handle.remove()


def scaled(z_BD: Tensor, tokens_BD: Tensor) -> Tensor:
    """Unit vectors at the norm of their class vectors, ||T(y)||: the one place where the two meet."""
    return normalize(z_BD, dim=1) * tokens_BD.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class Conditioning:
    """What a U-Net sees of a prompt: the text states (B, L, D) and, with SDXL, a pooled vector (B, P)."""

    states_BLD: Tensor
    pooled_BP: Tensor | None = None

    def expand(self, n: int) -> Conditioning:
        """One prompt's conditioning for n images."""
        pooled = self.pooled_BP if self.pooled_BP is None else self.pooled_BP.expand(n, -1)
        return Conditioning(self.states_BLD.expand(n, -1, -1), pooled)

    def zeros(self) -> Conditioning:
        """Zeros of the same shapes: the empty prompt of some SDXL models."""
        return Conditioning(
            torch.zeros_like(self.states_BLD),
            self.pooled_BP if self.pooled_BP is None else self.pooled_BP * 0,
        )


class TextSide:
    """A pipeline's tokenizers and text encoders, one or (SDXL) two, used as one, with the classes' prompts prepared.

    With two encoders T(y) is both tables' vectors side by side, (D1 + D2,), and a vector splits at the same place: each part
    takes the class word's place in its own encoder, at the norm of that encoder's part of T(y). `penultimate` takes the
    states before the last layer, as SDXL does. `spans` are those of `name_spans`, which finds them if they are not given.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Any, Any]],
        names: Sequence[str],
        prompts: Sequence[str],
        space: str,
        penultimate: bool = False,
        spans: Sequence[Span] = (),
    ) -> None:
        self._pairs, self._penultimate = pairs, penultimate
        prompts, spans = _with_spans(names, prompts, spans)
        books = [class_book(tokenizer, encoder, names, prompts, space, spans) for tokenizer, encoder in pairs]
        self._tokens = [book.tokens_CD for book in books]
        self.book = replace(books[0], tokens_CD=torch.cat(self._tokens, 1))
        self._spliced = [
            tuple(x.to(encoder.device) for x in spliced_ids(tokenizer, book, spans))
            for (tokenizer, encoder), book in zip(pairs, books, strict=True)
        ]

    def splice(self, z_BD: Tensor, y_B: Tensor) -> Conditioning:
        """The prompt of class `y_B` with a vector in the class name's place: `z_BD` is its direction, T(y) has its norm."""
        z_by_encoder = z_BD.split([tokens.shape[1] for tokens in self._tokens], dim=1)
        encoded = []
        for (_, encoder), (ids, position), tokens, z in zip(
            self._pairs, self._spliced, self._tokens, z_by_encoder, strict=True
        ):
            with spliced(encoder, position[y_B], scaled(z, tokens[y_B]).to(encoder.device)):
                encoded.append(self._encode(encoder, ids[y_B]))
        return _joined(encoded)

    def prompt(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts as they are; one that is too long is cut."""
        encoded = []
        for tokenizer, encoder in self._pairs:
            length = tokenizer.model_max_length
            ids = tokenizer(
                list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).input_ids
            encoded.append(self._encode(encoder, ids.to(encoder.device)))
        return _joined(encoded)

    def words(self) -> tuple[list[str], Tensor]:
        """The vocabulary's whole words of three letters or more, and their unit vectors (V, D) in the space of T(y)."""
        tokens = {
            token: i
            for token, i in self._pairs[0][0].get_vocab().items()
            if re.fullmatch(r"[a-z]{3,}</w>", token)
        }
        for tokenizer, _ in self._pairs[1:]:
            tokens = {token: i for token, i in tokens.items() if tokenizer.get_vocab().get(token) == i}
        rows = torch.tensor(sorted(tokens.values()))
        tables = [
            encoder.get_input_embeddings().weight.detach().float().cpu()[rows] for _, encoder in self._pairs
        ]
        return [token[:-4] for token in sorted(tokens, key=lambda t: tokens[t])], normalize(
            torch.cat(tables, 1), dim=1
        )

    def neighbours(self, z_MD: Tensor, n: int = 3) -> list[list[str]]:
        """The n words whose vectors have the largest cosine to each vector, nearest first."""
        words, table_VD = self.words()
        nearest = (
            (normalize(part, dim=1) @ table_VD.T).topk(min(n, len(words)), dim=1).indices.tolist()
            for part in z_MD.split(1024)
        )
        return [[words[i] for i in row] for part in nearest for row in part]

    @torch.no_grad()
    def _encode(self, encoder: Any, ids_BL: Tensor) -> Conditioning:
        out = encoder(ids_BL, output_hidden_states=self._penultimate)
        return Conditioning(
            out.hidden_states[-2] if self._penultimate else out.last_hidden_state, out.get("text_embeds")
        )


def _joined(parts: Sequence[Conditioning]) -> Conditioning:
    """The encoders' states side by side, and the last one's pooled vector."""
    return Conditioning(torch.cat([part.states_BLD for part in parts], 2), parts[-1].pooled_BP)
