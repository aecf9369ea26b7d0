"""The text side of a Stable Diffusion pipeline: class vectors from its input token table, and the splice that uses them.

A class name is one contiguous run of tokens in its prompt. Its vector T(y) is the mean of that run's rows, at the rows' mean
norm: for a single-token name (the papers' case) the row itself. A spliced vector takes the whole run's place, in one position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .types import ClassBook

TEMPLATE = "A high-quality image of the {}"


class PromptError(ValueError):
    """A class name and a prompt do not fit together; the message names both."""


def class_book(tokenizer: Any, text_encoder: Any, names: Sequence[str], prompts: Sequence[str] = (), space: str = "") -> ClassBook:
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
        raise PromptError(f"The decoder's tokenizer does not know the class name {name!r}. Give it another name in classes.toml.")
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


@torch.no_grad()
def splice(text_encoder: Any, ids_BL: Tensor, position_B: Tensor, v_BD: Tensor) -> Tensor:
    """The text transformer's states (B, L, D) for prompts whose token at `position_B` has the input embedding `v_BD`.

    The same as overwriting that token's row of the table, for each prompt on its own and without touching the weights: the table's
    output is replaced on the way, so every text encoder with an input table works. `v_BD` is used as it is, norm included.
    """
    here = torch.arange(ids_BL.shape[1], device=ids_BL.device)[None, :, None] == position_B[:, None, None]

    def replace(module: Any, args: Any, rows: Tensor) -> Tensor:
        return torch.where(here, v_BD[:, None, :].to(rows), rows)

    handle = text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        return text_encoder(ids_BL).last_hidden_state
    finally:
        handle.remove()


def scaled(z_BD: Tensor, tokens_BD: Tensor) -> Tensor:
    """Unit vectors at the norm of their class vectors, ||T(y)||: the one place where the two meet."""
    return normalize(z_BD, dim=1) * tokens_BD.norm(dim=1, keepdim=True)
