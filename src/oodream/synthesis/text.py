"""The text side of a Stable Diffusion pipeline: class vectors from its input token table, and the splice that
uses them.

A class name is one contiguous run of tokens in its prompt. Its vector T(y) is the mean of that run's rows, at
the rows' mean norm: for a name of a single token (the papers' case) the row itself. A spliced vector takes
the whole run's place, in one position. Where the run lies is given in characters ("spans"), because a prompt
may hold the name's words twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..config import PROMPT as TEMPLATE
from ..core.errors import brief, listed
from ..core.options import ConfigError
from ..core.types import ClassBook

__all__ = [
    "PromptError",
    "Span",
    "check_prompt",
    "class_book",
    "locate",
    "name_spans",
    "scaled",
    "spliced",
    "spliced_ids",
    "unwritable",
    "with_spans",
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

    A prompt may hold the name more than once. The `template` that the prompts were made with says where its
    {} was filled; of what was filled in there the last occurrence counts. Without a template the prompts are
    taken to come from one that is not known: the occurrence counts whose text before and text behind most of
    the prompts share.

    Raises PromptError for names that their prompts do not hold there, and where two occurrences are equally
    good, all at once.
    """
    occurrences = [
        _in_placeholder(name, prompt, template)[-1:] if template else _occurrences(name, prompt)
        for name, prompt in zip(names, prompts, strict=True)
    ]
    shared = Counter(
        text
        for spans, prompt in zip(occurrences, prompts, strict=True)
        for text in {text for span in spans for text in _around(prompt, span)}
    )
    result, faults = [], []
    for name, prompt, spans in zip(names, prompts, occurrences, strict=True):
        votes = [sum(shared[text] for text in _around(prompt, span)) for span in spans]
        if not spans:
            place = f" in the place of {{}} in {template!r}" if template else ""
            faults.append(f"The class name {name!r} does not occur in its prompt {prompt!r}{place}.")
        elif votes.count(max(votes)) > 1:
            faults.append(
                f"The prompt {prompt!r} holds the class name {name!r} {len(spans)} times. Say with `spans` "
                f"which of them is meant, or word the prompt otherwise."
            )
        else:
            result.append(spans[votes.index(max(votes))])
    if faults:
        raise PromptError(listed(faults, " "))
    return result


def _occurrences(name: str, prompt: str) -> list[Span]:
    words = r"\s+".join(map(re.escape, name.split()))
    return [match.span() for match in re.finditer(rf"(?<!\w){words}(?!\w)", prompt, re.IGNORECASE)]


def _in_placeholder(name: str, prompt: str, template: str) -> list[Span]:
    head, tail = template.split("{}")
    if not (prompt.startswith(head) and prompt.endswith(tail)):
        return []
    words = prompt[len(head) : len(prompt) - len(tail)]
    return [(a + len(head), b + len(head)) for a, b in _occurrences(name, words)]


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
    """T(y) for every class (DREAM-OOD, section 3.1): rows of the input token table, float32 (C, D), as they
    are.

    Raises PromptError for names without tokens or unknown to the tokenizer, all at once; so for prompts that
    are too long or do not hold their names; and where `name_spans` does if no `spans` are given.
    """
    prompts, spans = with_spans(names, prompts, spans)
    table = text_encoder.get_input_embeddings().weight.detach().float().cpu()
    tokens = []
    for ids, start, stop in _located(tokenizer, names, prompts, spans):
        rows = table[ids[start:stop]]
        tokens.append(normalize(rows.mean(0), dim=0) * rows.norm(dim=1).mean())
    return ClassBook(names=tuple(names), prompts=prompts, tokens_CD=torch.stack(tokens), space=space)


def with_spans(
    names: Sequence[str], prompts: Sequence[str], spans: Sequence[Span]
) -> tuple[tuple[str, ...], Sequence[Span]]:
    """The prompts and spans, or the prompts of the default template with theirs."""
    if prompts:
        return tuple(prompts), spans
    made = tuple(TEMPLATE.format(name) for name in names)
    return made, spans or name_spans(names, made, TEMPLATE)


def locate(tokenizer: Any, name: str, prompt: str, span: Span | None = None) -> tuple[list[int], int, int]:
    """The prompt's token ids, and the run [start, stop) in them that is the class name at the characters
    `span`.

    Raises PromptError as `class_book` does.
    """
    (located,) = _located(tokenizer, [name], [prompt], [] if span is None else [span])
    return located


def _located(
    tokenizer: Any, names: Sequence[str], prompts: Sequence[str], spans: Sequence[Span]
) -> list[tuple[list[int], int, int]]:
    words = _words(tokenizer, names)
    spans = spans or name_spans(names, prompts)
    located, long, lost = [], [], []
    for name, prompt, span, word in zip(names, prompts, spans, words, strict=True):
        ids, start = _run(tokenizer, prompt, span)
        if len(ids) > tokenizer.model_max_length:
            long.append(f"{brief(name)} ({len(ids)})")
        elif ids[start : start + len(word)] != word:
            lost.append(
                f"The class name {name!r} does not occur in its prompt {prompt!r} as words of their own."
            )
        located.append((ids, start, start + len(word)))
    if long:
        raise PromptError(
            f"The decoder reads {tokenizer.model_max_length} tokens of a prompt, and those of these classes "
            f"have more: {listed(long)}. Shorten the class names, or decode.prompt."
        )
    if lost:
        raise PromptError(listed(lost, " "))
    return located


def _words(tokenizer: Any, names: Sequence[str]) -> list[list[int]]:
    """Each name's own tokens; PromptError tells all names that have none, and all that are not known."""
    words = [_ids(tokenizer, name) for name in names]
    empty = [name for name, word in zip(names, words, strict=True) if not word]
    strange = [name for name, word in zip(names, words, strict=True) if tokenizer.unk_token_id in word]
    faults = [f"The {_called(empty)} {'holds' if len(empty) == 1 else 'hold'} no word."] if empty else []
    faults += [f"The decoder's tokenizer does not know the {_called(strange)}."] if strange else []
    if faults:
        raise PromptError(f"{' '.join(faults)} {_renaming([*empty, *strange])}")
    return words


def _called(names: Sequence[str]) -> str:
    """All of the names, for none can be left as it is."""
    return f"class name{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def unwritable(tokenizer: Any, names: Sequence[str]) -> list[str]:
    """Those of the names that hold no word, or letters that the tokenizer does not know."""
    ids = [_ids(tokenizer, name) for name in names]
    return [name for name, word in zip(names, ids, strict=True) if not word or tokenizer.unk_token_id in word]


def _ids(tokenizer: Any, name: str) -> list[int]:
    ids: list[int] = tokenizer(name, add_special_tokens=False).input_ids
    return ids


def _renaming(names: Sequence[str]) -> str:
    """How to give classes other names."""
    folder = json.dumps(names[0], ensure_ascii=False)
    wanted = "it another name" if len(names) == 1 else "them other names"
    return (
        f"Give {wanted}: write a file classes.toml into the data folder, beside the classes' folders, "
        f'with the line [classes] and below it a line for every folder, as {folder} = "another name".'
    )


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
    """Within the block, prompt b's token at `position_B` has the input embedding `v_BD`, used as it is, norm
    included.

    The same as overwriting that token's row of the table, for each prompt on its own and without touching the
    weights: the table's output is replaced on the way, so every text encoder with an input table works.
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
