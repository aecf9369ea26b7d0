"""Known classes that OOD sets name: in the set's own name, in folders and in file names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..core.errors import listed
from ..core.types import Json
from ..data.images import ImageSet
from .finding import EXAMPLES, Finding

__all__ = ["named_classes"]

WORD = re.compile(r"n\d{8}|[^\W\d_]+")  # a WordNet id or letters
STOP = frozenset(
    "a an and by class classes cropped data dataset far for from full id image images img imgs in jpeg "
    "jpg large near new of on ood original other out photo photos pic pics picture pictures png raw "
    "sample samples set sets small test the to train training unknown val valid validation with".split()
)
MAX_WORDS = 5  # of a class's name


def named_classes(
    sets: Sequence[ImageSet], classes: Sequence[str], words: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """OOD sets whose name, folders or files name a known class.

    Names are compared as whole words in any case, singular or plural. `words` are other names of the classes,
    by class.
    """
    class_of = {
        key: name for name in classes for synonym in (name, *words.get(name, ())) for key in _keys(synonym)
    }
    clean = []
    for s in (s for s in sets if s.group in ("near", "far")):
        hits: dict[str, Json] = {}
        count = 0
        for parts, file in zip(_parts(s.name, s.images.files), s.images.files, strict=True):
            named = {name for part in parts for name in _classes_in(part, class_of)}
            count += bool(named)
            for name in sorted(named):
                hits.setdefault(name, {"class": name, "file": file, "count": 0})["count"] += 1
        if not hits:
            clean.append(s.name)
            continue
        examples = sorted(hits.values(), key=lambda hit: -hit["count"])
        yield Finding(
            kind="names",
            sets=(s.name,),
            count=count,
            share=count / len(s.images),
            severity="warning",
            message=f"{count:,} of {len(s.images):,} files of {s.name} have the name of a known class: "
            f"{listed(hit['class'] for hit in examples)}. Look whether they show these classes; "
            "if so, they are not unknown.",
            examples=tuple(examples[:EXAMPLES]),
        )
    if clean:
        yield Finding(
            kind="names",
            sets=tuple(clean),
            count=0,
            share=0.0,
            severity="fine",
            message=f"No folder or file of {listed(clean)} has the name of a known class.",
        )


def _parts(set_name: str, files: Sequence[str]) -> Iterator[list[str]]:
    """For every file the set's name, the folders that not all files lie in, and the file's own name."""
    paths = [Path(file) for file in files]
    shared = len(Path(os.path.commonpath([path.parent for path in paths])).parts)
    for path in paths:
        yield [set_name, *path.parts[shared:-1], path.stem]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]


def _forms(word: str) -> set[str]:
    """The word, and the words that it may be the plural of."""
    forms = {word}
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(f"{word[:-3]}y")
    return forms


def _keys(synonyms: str) -> set[str]:
    """What a class is found by: each of its names (separated by commas, slashes) without spaces.

    Single letters and numbers are left out.
    """
    keys: set[str] = set()
    for words in map(_words, re.split(r"[,;/()]", synonyms)):
        if len("".join(words)) > 1:
            keys |= {"".join([*words[:-1], form]) for form in _forms(words[-1])}
    return keys


def _classes_in(part: str, class_of: Mapping[str, str]) -> Iterator[str]:
    """The classes a folder or file names, longest first: "polo-shirts" names "polo shirt", not "shirt"."""
    words, start = _words(part), 0
    if STOP.issuperset(words):
        return
    while start < len(words):
        for stop in range(min(len(words), start + MAX_WORDS), start, -1):
            forms = {"".join([*words[start : stop - 1], form]) for form in _forms(words[stop - 1])}
            if hit := next((class_of[form] for form in sorted(forms) if form in class_of), None):
                yield hit
                start = stop - 1
                break
        start += 1
