"""The names that a decoder learns or has learnt: which of them show an unknown class, and which class words
are missing.

A decoder made by `fit-decoder` lists its names in `names.json`. What other decoders know is not known here.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core.errors import DataError, listed, shown
from ..core.files import ASSETS, read_json, read_text
from .errors import DecoderError
from .pipeline import EMBEDDED

__all__ = [
    "NAMES",
    "check_without",
    "disjoint",
    "hidden",
    "known_to",
    "things",
    "unlearnt",
    "warn_of_names",
    "warn_of_words",
]

NAMES = "names.json"
"""every name that a decoder has learnt, in its folder"""


def known_to(source: str | Path) -> set[str] | None:
    """The names that the decoder in a folder (or "embedded") has learnt; None where there is no list of them,
    as for a decoder of the hub.

    Raises StoreError for a list that is no JSON, DecoderError for one that is no list of names.
    """
    file = (EMBEDDED if source == "embedded" else Path(source)) / NAMES
    if not file.is_file():
        return None
    names = read_json(file)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DecoderError(f'{shown(file)} is no list of names such as ["cat", "dog"]. Mend or remove it.')
    return set(names)


def things() -> set[str]:
    """More than a thousand names of things, each a word: what a decoder that lists no names may draw."""
    return set(filter(None, map(_plain, _without_comments(ASSETS / "words" / "things.txt"))))


def hidden(
    names: Iterable[str], unknown: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> dict[str, str]:
    """Those of `names` that hold an unknown class, or one of its synonyms, and the class that each holds.

    They hold it as whole words, in any case, joined by spaces, hyphens or underscores, in the singular or a
    regular plural: "Fire-Engines" holds "fire engine", and "hot dog" holds "dog", too.
    """
    words = {name: (name, *(synonyms or {}).get(name, ())) for name in unknown}
    patterns = {name: re.compile("|".join(map(_pattern, texts))) for name, texts in words.items()}
    classes = {name: _first(patterns, _plain(name)) for name in names}
    return {name: class_ for name, class_ in classes.items() if class_ is not None}


def unlearnt(names: Iterable[str], classes: Sequence[str]) -> list[str]:
    """Those of `classes` that none of the learnt `names` holds as whole words, in any case."""
    text = "\n".join(map(_plain, names))
    return [name for name in classes if not re.search(_pattern(name), text)]


def disjoint(
    names: Sequence[str], classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Those of `names` that neither hold a class or one of its synonyms, as `hidden` finds them, nor are a
    part of one: "boot" and "boots" are no name for another thing than "ankle boot".
    """
    words = [_plain(text).split() for name in classes for text in (name, *(synonyms or {}).get(name, ()))]
    runs = {" ".join(w[i:j]) for w in words for i in range(len(w)) for j in range(i + 1, len(w) + 1)}
    part = re.compile("|".join(map(_pattern, sorted(runs))) or r"(?!)")
    held = hidden(names, classes, synonyms)
    return [name for name in names if name not in held and not part.fullmatch(_plain(name))]


def warn_of_names(
    source: str | Path,
    classes: Sequence[str],
    unknown: Sequence[str] = (),
    synonyms: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Warns of class words that the decoder at `source` has not learnt, and of unknown classes that it has.

    Says nothing of a decoder whose names are not known. Raises what `known_to` does.
    """
    if (names := known_to(source)) is None:
        return
    if missing := unlearnt(names, classes):
        warnings.warn(
            f"The decoder {shown(source)} has not learnt {listed(map(repr, missing))}: its pictures will not "
            f"show {'it' if len(missing) == 1 else 'them'}. Call the class in classes.toml by a word that it "
            f"has learnt, or train a decoder on pictures of it (oodream fit-decoder).",
            stacklevel=2,
        )
    if held := hidden(sorted(names), unknown, synonyms):
        warnings.warn(
            f"The decoder {shown(source)} has learnt what is unknown here: {_pairs(held)}. What it imagines "
            f"may show it, and near-OOD numbers are then too good. Train a decoder without these "
            f"(oodream fit-decoder --without).",
            stacklevel=2,
        )


def warn_of_words(source: str | Path, words: Sequence[str]) -> None:
    """Warns of words to sample from that the decoder at `source` has not learnt.

    Says nothing of a decoder whose names are not known. Raises what `known_to` does.
    """
    if (names := known_to(source)) is not None and (missing := unlearnt(names, words)):
        warnings.warn(
            f"The decoder {shown(source)} has not learnt {listed(map(repr, missing))}, so outliers drawn by "
            "such words show nothing in particular. Several words are written with commas between them "
            "(--sample.options words=star,moon); without any, all that it has learnt are taken.",
            stacklevel=2,
        )


def check_without(captions: Iterable[str], without: Sequence[str], start: str = "") -> None:
    """Raises DataError where captions, or names that the decoder `start` has learnt, hold one of the names
    `without`, as `hidden` finds them. Warns of a `start` whose names are not known.

    An entry of `without` that ends in .txt is a file with a name a line (# begins a comment). Captions are
    refused and not dropped: a caption may hold a word in another sense, as "hot dog" does, and what the
    decoder then lacks is for its maker to choose.
    """
    excluded = [name for entry in without for name in _names_of(entry)]
    if held := hidden(sorted(set(captions)), excluded):
        raise DataError(
            f"Captions hold what --without excludes: {_pairs(held)}. Take their pictures out, or exclude "
            f"less."
        )
    if not start or not excluded:
        return
    if (learnt := known_to(start)) is None:
        warnings.warn(
            f"The decoder {shown(start)} does not say what it has learnt: it may know what --without "
            f"excludes.",
            stacklevel=2,
        )
    elif held := hidden(sorted(learnt), excluded):
        raise DataError(
            f"The decoder {shown(start)} has learnt what --without excludes: {_pairs(held)}. Begin with "
            f"another one, or exclude less."
        )


def _names_of(entry: str) -> list[str]:
    """The name itself, or the names in a text file."""
    if not entry.endswith(".txt"):
        return [entry]
    try:
        lines = _without_comments(Path(entry))
    except (OSError, ValueError) as error:
        raise DataError(f"--without {shown(entry)} cannot be read: {error}.") from error
    return [name for line in lines if (name := _plain(line))]


def _without_comments(file: Path) -> list[str]:
    """The lines of a text file, each up to its #."""
    return [line.partition("#")[0] for line in read_text(file).splitlines()]


def _pairs(held: Mapping[str, str]) -> str:
    """Names, each with the class that it holds unless that is its own word."""
    return listed(name if name == of else f"{name!r} ({of})" for name, of in held.items())


def _first(patterns: Mapping[str, re.Pattern[str]], text: str) -> str | None:
    return next((name for name, pattern in patterns.items() if pattern.search(text)), None)


def _pattern(name: str) -> str:
    """A regular expression for a name as whole words, or its regular plural, in a text that is `_plain`."""
    words = _plain(name)
    ending = next((end for end in ("fe", "f", "y") if words.endswith(end)), "")
    plural = "ies" if ending == "y" else "ves"
    changed = f"|{re.escape(words.removesuffix(ending))}{plural}" if ending else ""
    return rf"(?<!\w)(?:{re.escape(words)}(?:e?s)?{changed})(?!\w)"


def _plain(text: str) -> str:
    """In NFC and lower case, with single spaces in place of hyphens and underscores."""
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFC", text).casefold())).strip()
