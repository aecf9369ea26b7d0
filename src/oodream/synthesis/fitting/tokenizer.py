"""A CLIP tokenizer whose merges are learnt from captions."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import FitDecoderConfig
from ...core.errors import StoreError, are, shown
from ...core.files import atomic_folder, read_json, write_json
from ...core.folders import HASHES, changed_files, write_hashes

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["fit_tokenizer", "is_damaged", "save_complete"]

ENDINGS = range(ord("!"), ord("~") + 1)
"""printable ASCII characters"""


def fit_tokenizer(captions: Sequence[str], config: FitDecoderConfig, folder: Path) -> CLIPTokenizer:
    """A byte-level BPE tokenizer (lower case, `</w>` at word ends), kept in `folder` for the next call."""
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").exists() or is_damaged(folder):
        texts = [*captions, *config.templates]
        empty = CLIPTokenizer(model_max_length=config.tokens)
        trained = empty.train_new_from_iterator(
            [texts],
            vocab_size=config.vocabulary,
            show_progress=False,
            new_special_tokens=_endings(empty, texts),
        )
        model = json.loads(trained.backend_tokenizer.to_str())["model"]
        merges = [tuple(pair) for pair in model["merges"]]
        save_complete(
            CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=config.tokens), folder
        )
    return CLIPTokenizer.from_pretrained(folder)


def save_complete(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Saves the tokenizer with every printable ASCII character also as the end of a word.

    So no English text has an unknown part. A tokenizer learnt from captions lacks the endings that no caption
    has ("class 1").
    """
    with atomic_folder(folder) as fresh:
        tokenizer.save_pretrained(fresh)
        state = read_json(fresh / "tokenizer.json")
        vocabulary = state["model"]["vocab"]
        for number in ENDINGS:
            vocabulary.setdefault(f"{chr(number)}</w>", len(vocabulary))
        write_json(fresh / "tokenizer.json", state)
        write_hashes(fresh)


def is_damaged(folder: Path) -> bool:
    """Whether a tokenizer's files are not as `save_complete` wrote them; warns where they are not."""
    try:
        changed = changed_files(folder)
    except StoreError:
        changed = [folder / HASHES]
    if changed:
        warnings.warn(f"{are([*map(shown, changed)])} damaged and made again.", stacklevel=2)
    return bool(changed)


def _endings(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> list[str]:
    """Every character with which a word may end, in order.

    The trainer numbers tokens that it is given first. Those that it meets it numbers as they come, which
    is another order in each process, and equally frequent pairs are merged in the order of their numbers.
    """
    backend = tokenizer.backend_tokenizer
    words = (
        word
        for text in texts
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    )
    return [f"{end}</w>" for end in sorted({word[-1] for word in words} | set(map(chr, ENDINGS)))]
