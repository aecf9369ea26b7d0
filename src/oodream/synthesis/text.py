"""The text side of a Stable Diffusion pipeline: class vectors from its input token table, and the splice that uses them.

A class name is one contiguous run of tokens in its prompt. Its vector T(y) is the mean of that run's rows, at the rows' mean
norm: for a single-token name (the papers' case) the row itself. A spliced vector takes the whole run's place, in one position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.types import ClassBook

TEMPLATE = "A high-quality image of the {}"


class PromptError(ValueError):
    """A class name and a prompt do not fit together; the message names both."""


def class_book(
    tokenizer: Any, text_encoder: Any, names: Sequence[str], prompts: Sequence[str] = (), space: str = ""
) -> ClassBook:
    """T(y) for every class (DREAM-OOD, section 3.1): rows of the input token table, float32 (C, D), as they are.

    Raises PromptError for a name without tokens, unknown to the tokenizer, absent from its prompt, or past the prompt's end.
    """
    prompts = tuple(prompts) or tuple(TEMPLATE.format(name) for name in names)
    table = text_encoder.get_input_embeddings().weight.detach().float().cpu()
    tokens = []
    for name, prompt in zip(names, prompts, strict=True):
        ids, start, stop = locate(tokenizer, name, prompt)
        rows = table[ids[start:stop]]
        tokens.append(normalize(rows.mean(0), dim=0) * rows.norm(dim=1).mean())
    return ClassBook(names=tuple(names), prompts=prompts, tokens_CD=torch.stack(tokens), space=space)


def locate(tokenizer: Any, name: str, prompt: str) -> tuple[list[int], int, int]:
    """The prompt's token ids, and the run [start, stop) in them that is the class name."""
    word = tokenizer(name, add_special_tokens=False).input_ids
    ids = tokenizer(prompt).input_ids
    if not word:
        raise PromptError(f"The class name {name!r} holds no word. Give it a name in classes.toml.")
    if tokenizer.unk_token_id in word:
        raise PromptError(
            f"The decoder's tokenizer does not know the class name {name!r}. Give it another name in classes.toml."
        )
    starts = [i for i in range(len(ids) - len(word) + 1) if ids[i : i + len(word)] == word]
    if not starts:
        raise PromptError(f"The class name {name!r} does not occur in its prompt {prompt!r}.")
    if len(ids) > tokenizer.model_max_length:
        limit = tokenizer.model_max_length
        raise PromptError(
            f"The prompt {prompt!r} has {len(ids)} tokens and the decoder reads {limit}. Shorten the class name {name!r}."
        )
    return ids, starts[-1], starts[-1] + len(word)


def spliced_ids(tokenizer: Any, book: ClassBook) -> tuple[Tensor, Tensor]:
    """Prompts as ids (C, L) with the class name's run collapsed to one token, and that token's position (C,)."""
    rows, positions = [], []
    for name, prompt in zip(book.names, book.prompts, strict=True):
        ids, start, stop = locate(tokenizer, name, prompt)
        short = ids[: start + 1] + ids[stop:]
        rows.append(short + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(short)))
        positions.append(start)
    return torch.tensor(rows), torch.tensor(positions)


@contextmanager
def spliced(text_encoder: Any, position_B: Tensor, v_BD: Tensor) -> Iterator[None]:
    """Within the block, prompt b's token at `position_B` has the input embedding `v_BD`, used as it is, norm included.

    The same as overwriting that token's row of the table, for each prompt on its own and without touching the weights: the table's
    output is replaced on the way, so every text encoder with an input table works.
    """

    def exchange(module: Any, args: Any, rows_BLD: Tensor) -> Tensor:
        here = (
            torch.arange(rows_BLD.shape[1], device=rows_BLD.device)[None, :, None]
            == position_B[:, None, None]
        )
        return torch.where(here, v_BD[:, None, :].to(rows_BLD), rows_BLD)

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
    """What a U-Net is told of a prompt: the text states (B, L, D) and, with SDXL, a pooled vector (B, P)."""

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
    """A pipeline's text side with the classes' prompts prepared: its tokenizers and text encoders, one or (SDXL) two, as one.

    With two encoders T(y) is both tables' vectors side by side, (D1 + D2,), and a vector splits at the same place: each part takes
    the class word's place in its own encoder, at the norm of that encoder's part of T(y). `penultimate` takes the states before
    the last layer, as SDXL does.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Any, Any]],
        names: Sequence[str],
        prompts: Sequence[str],
        space: str,
        penultimate: bool = False,
    ) -> None:
        self._pairs, self._penultimate = pairs, penultimate
        books = [class_book(tokenizer, encoder, names, prompts, space) for tokenizer, encoder in pairs]
        self._tokens = [book.tokens_CD for book in books]
        self.book = replace(books[0], tokens_CD=torch.cat(self._tokens, 1))
        self._spliced = [
            tuple(x.to(encoder.device) for x in spliced_ids(tokenizer, book))
            for (tokenizer, encoder), book in zip(pairs, books, strict=True)
        ]

    def splice(self, z_BD: Tensor, y_B: Tensor) -> Conditioning:
        """The prompt of class `y_B` with a vector in the class word's place; `z_BD` gives its direction, T(y) its norm."""
        parts = z_BD.split([tokens.shape[1] for tokens in self._tokens], dim=1)
        found = []
        for (_, encoder), (ids, position), tokens, z in zip(
            self._pairs, self._spliced, self._tokens, parts, strict=True
        ):
            with spliced(encoder, position[y_B], scaled(z, tokens[y_B]).to(encoder.device)):
                found.append(self._encode(encoder, ids[y_B]))
        return _joined(found)

    def prompt(self, prompts: Sequence[str]) -> Conditioning:
        """Ordinary prompts."""
        found = []
        for tokenizer, encoder in self._pairs:
            length = tokenizer.model_max_length
            ids = tokenizer(
                list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).input_ids
            found.append(self._encode(encoder, ids.to(encoder.device)))
        return _joined(found)

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
