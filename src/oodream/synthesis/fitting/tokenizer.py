"""A CLIP tokenizer whose merges are learnt from captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import FitDecoderConfig
from ...core.files import atomic_folder, read_json, write_json

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["fit_tokenizer", "save_complete"]

ENDINGS = range(ord("!"), ord("~") + 1)
"""printable ASCII characters"""


def fit_tokenizer(captions: Sequence[str], config: FitDecoderConfig, folder: Path) -> CLIPTokenizer:
    """A byte-level BPE tokenizer (lower case, `</w>` at word ends), kept in `folder` for the next call."""
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").exists():
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
