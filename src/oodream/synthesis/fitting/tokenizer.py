"""A CLIP tokenizer whose merges are learnt from captions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import FitDecoderConfig
from ...core.errors import StoreError, shown
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
            [texts], vocab_size=config.vocabulary - len(ENDINGS), show_progress=False
        )
        save_complete(trained, folder)
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
        warnings.warn(f"{shown(changed[0])} is damaged and made again.", stacklevel=2)
    return bool(changed)
