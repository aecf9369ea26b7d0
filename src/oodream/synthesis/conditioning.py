"""What a U-Net sees of a prompt, and the text encoders that make it."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.errors import listed
from .text import PromptError, Span, class_book, scaled, spliced, spliced_ids, unwritable, with_spans

__all__ = ["Conditioning", "TextSide"]


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
    """A pipeline's tokenizers and text encoders, one or (SDXL) two, used as one, with the classes' prompts
    prepared.

    With two encoders T(y) is both tables' vectors side by side, (D1 + D2,), and a vector splits at the same
    place: each part takes the class word's place in its own encoder, at the norm of that encoder's part of
    T(y). `penultimate` takes the states before the last layer, as SDXL does. `spans` are those of
    `name_spans`, which finds them if they are not given.
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
        self._one_at_a_time = threading.Lock()  # threads would see each other's spliced tokens
        prompts, spans = with_spans(names, prompts, spans)
        books = [class_book(tokenizer, encoder, names, prompts, space, spans) for tokenizer, encoder in pairs]
        self._tokens = [book.tokens_CD for book in books]
        self.book = replace(books[0], tokens_CD=torch.cat(self._tokens, 1))
        self._spliced = [
            tuple(x.to(encoder.device) for x in spliced_ids(tokenizer, book, spans))
            for (tokenizer, encoder), book in zip(pairs, books, strict=True)
        ]

    def splice(self, z_BD: Tensor, y_B: Tensor) -> Conditioning:
        """The prompt of class `y_B` with a vector in the class name's place: `z_BD` is its direction, T(y)
        has its norm.
        """
        z_by_encoder = z_BD.split([tokens.shape[1] for tokens in self._tokens], dim=1)
        encoded = []
        for (_, encoder), (ids, position), tokens, z in zip(
            self._pairs, self._spliced, self._tokens, z_by_encoder, strict=True
        ):
            v_BD = scaled(z, tokens[y_B]).to(encoder.device)
            with self._one_at_a_time, spliced(encoder, position[y_B], v_BD):
                encoded.append(self._encode(encoder, ids[y_B]))
        return _joined(encoded)

    def prompt(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts as they are; one that is too long is cut."""
        encoded = []
        for tokenizer, encoder in self._pairs:
            length = tokenizer.model_max_length
            with self._one_at_a_time:
                ids = tokenizer(
                    list(prompts), padding="max_length", truncation=True, max_length=length,
                    return_tensors="pt",
                ).input_ids  # fmt: skip
                encoded.append(self._encode(encoder, ids.to(encoder.device)))
        return _joined(encoded)

    def words(self) -> tuple[list[str], Tensor]:
        """What ends a word in the vocabulary, of three letters or more: words, and ends of longer ones. And
        their unit vectors (V, D) in the space of T(y).
        """
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

    def vectors(self, names: Sequence[str]) -> Tensor:
        """The unit vectors (V, D) of T(name), as `class_book` makes them.

        Raises PromptError for a name that a tokenizer does not know.
        """
        for tokenizer, _ in self._pairs:
            if strange := unwritable(tokenizer, names):
                raise PromptError(
                    f"The decoder's tokenizer does not know {listed(map(repr, strange))}, and cannot draw "
                    "things by such names. Name other words."
                )
        books = [class_book(tokenizer, encoder, names) for tokenizer, encoder in self._pairs]
        return normalize(torch.cat([book.tokens_CD for book in books], 1), dim=1)

    @torch.no_grad()
    def _encode(self, encoder: Any, ids_BL: Tensor) -> Conditioning:
        out = encoder(ids_BL, output_hidden_states=self._penultimate)
        return Conditioning(
            out.hidden_states[-2] if self._penultimate else out.last_hidden_state, out.get("text_embeds")
        )


def _joined(parts: Sequence[Conditioning]) -> Conditioning:
    """The encoders' states side by side, and the last one's pooled vector."""
    return Conditioning(torch.cat([part.states_BLD for part in parts], 2), parts[-1].pooled_BP)
