"""The prompts that the text transformer learns: captions in templates, whole or with the caption as one
vector.

DREAM-OOD decodes a prompt in which one vector stands in the place of the class name. A decoder that has
learnt such prompts draws a name of several words from its T(y), and draws it from the vectors around T(y),
too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..text import PromptError, locate, spliced

__all__ = ["Prompts", "name_and_template", "plain"]

MARKED = re.compile(r"([^{}]*)\{([^{}]+)\}([^{}]*)")


def name_and_template(caption: str) -> tuple[str, str]:
    """What a caption names, and the prompt of its own that it names it in: ("cat", "a doodle of a {}") for "a
    doodle of a {cat}". A caption without such a mark has no prompt of its own: ("cat", "").
    """
    marked = MARKED.fullmatch(caption)
    return (marked[2], f"{marked[1]}{{}}{marked[3]}") if marked else (caption, "")


def plain(caption: str) -> str:
    """The caption without its mark."""
    name, template = name_and_template(caption)
    return template.format(name) if template else caption


class Prompts:
    """Every caption in every template, as token ids: whole (T, L), and with the caption's run as one token.

    A caption with a prompt of its own is in that alone, whatever the template. The last row is the empty
    prompt. A caption that is too long, or that a template joins to another word, is never one vector.
    """

    def __init__(
        self, tokenizer: Any, captions: Sequence[str], templates: Sequence[str], device: torch.device
    ) -> None:
        self.captions, self.templates = sorted(set(captions)), templates
        self._number = {caption: i for i, caption in enumerate(self.captions)}
        length, pad = tokenizer.model_max_length, tokenizer.pad_token_id
        whole, short, runs, positions = [], [], [], []
        for caption in self.captions:
            for template in templates:
                name, own = name_and_template(caption)
                ids, start, stop = _located(tokenizer, name, own or template)
                whole.append(ids + [pad] * (length - len(ids)))
                spliced_ids = ids[: start + 1] + ids[stop:]
                short.append(spliced_ids + [pad] * (length - len(spliced_ids)))
                runs.append(ids[start:stop])
                positions.append(start if stop > start else -1)
        empty = tokenizer("", padding="max_length", max_length=length).input_ids
        width = max(map(len, runs))
        self._whole_TL = torch.tensor([*whole, empty], device=device)
        self._short_TL = torch.tensor([*short, empty], device=device)
        self._run_TR = torch.tensor(
            [*(run + [-1] * (width - len(run)) for run in runs), [-1] * width], device=device
        )
        self._position_T = torch.tensor([*positions, -1], device=device)

    @property
    def empty(self) -> int:
        """The row of the empty prompt."""
        return len(self._whole_TL) - 1

    def row(self, caption: str, template: int) -> int:
        """The row of a caption in a template."""
        return self._number[caption] * len(self.templates) + template

    def encode(self, text_encoder: Any, row_B: Tensor, cosine_B: Tensor, noise_BD: Tensor) -> Tensor:
        """The text states (B, L, D) of prompts. Where `cosine_B` is above 0, the caption is one vector: T(y)
        plus noise, with this cosine to T(y) on average, at T(y)'s norm.
        """
        position_B = torch.where(cosine_B > 0, self._position_T[row_B], -1)
        ids_BL = torch.where(position_B[:, None] >= 0, self._short_TL[row_B], self._whole_TL[row_B])
        v_BD = self._vectors(text_encoder.get_input_embeddings().weight, self._run_TR[row_B])
        sigma_B = (1 / cosine_B.clamp(min=1e-3).square() - 1).clamp(min=0).sqrt() / v_BD.shape[1] ** 0.5
        noisy_BD = normalize(normalize(v_BD, dim=1) + sigma_B[:, None] * noise_BD, dim=1)
        with spliced(text_encoder, position_B, noisy_BD * v_BD.norm(dim=1, keepdim=True)):
            states: Tensor = text_encoder(ids_BL).last_hidden_state
        return states

    @staticmethod
    def _vectors(table_VD: Tensor, run_BR: Tensor) -> Tensor:
        """T(y) (B, D) of runs of tokens (-1: none): the mean of the rows' directions at their mean norm."""
        there_BR1 = (run_BR >= 0).unsqueeze(2)
        rows_BRD = table_VD[run_BR.clamp(min=0)] * there_BR1
        n_B1 = there_BR1.sum(1).clamp(min=1)
        mean_BD = rows_BRD.sum(1) / n_B1
        return normalize(mean_BD, dim=1) * (rows_BRD.norm(dim=2, keepdim=True).sum(1) / n_B1)


def _located(tokenizer: Any, name: str, template: str) -> tuple[list[int], int, int]:
    """The ids of a name in a template, and the run of its own; an empty run where there is none."""
    text, begin = template.format(name), template.index("{}")
    try:
        return locate(tokenizer, name, text, (begin, begin + len(name)))
    except PromptError:
        ids = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
        return ids, len(ids) - 1, len(ids) - 1
