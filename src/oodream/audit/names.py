"""audit.names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..core.errors import listed
from ..core.types import Json
from ..data.images import Images
from .finding import EXAMPLES, Finding

# Known classes by name -------------------------------------------------------------------------------------------------------

WORD = re.compile(r"n\d{8}|[^\W\d_]+")  # a WordNet id or letters
STOP = frozenset(
    "a an and by class classes cropped data dataset far for from full id image images img imgs in jpeg jpg large near new of on "
    "ood original other out photo photos pic pics picture pictures png raw sample samples set sets small test the to train "
    "training unknown val valid validation with".split()
)


def named(
    sets: Mapping[str, tuple[str, Images]], classes: Sequence[str], words: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """OOD sets whose own name, folders or files are called as a known class is: whole words in any case, singular or plural."""
    class_of = {
        key: name for name in classes for called in (name, *words.get(name, ())) for key in _keys(called)
    }
    clean = []
    for set_name, (group, images) in sets.items():
        if group not in ("near", "far"):
            continue
        hits: dict[str, Json] = {}
        count = 0
        for parts, file in zip(_parts(set_name, images.files), images.files, strict=True):
            found = {name for part in parts for name in _classes_in(part, class_of)}
            count += bool(found)
            for name in found:
                hits.setdefault(name, {"class": name, "file": file, "count": 0})["count"] += 1
        if not hits:
            clean.append(set_name)
            continue
        examples = sorted(hits.values(), key=lambda hit: -hit["count"])
        yield Finding(
            kind="names", sets=(set_name,), count=count, share=count / len(images), severity="warning",
            message=f"{count:,} of {len(images):,} files of {set_name} are called as known classes are: "
            f"{listed(hit['class'] for hit in examples)}. Look whether they show them; if so, they are no unknown things.",
            examples=tuple(examples[:EXAMPLES]),
        )  # fmt: skip
    if clean:
        yield Finding(
            kind="names", sets=tuple(clean), count=0, share=0.0, severity="fine",
            message=f"No known class is named by the folders and files of {listed(clean)}.",
        )  # fmt: skip


def _parts(set_name: str, files: Sequence[str]) -> Iterator[list[str]]:
    """The set's name, and of every file the folders that not all files lie in, and its own name."""
    paths = [Path(file) for file in files]
    shared = len(Path(os.path.commonpath([path.parent for path in paths])).parts)
    for path in paths:
        yield [set_name, *path.parts[shared:-1], path.stem]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]


def _forms(word: str) -> set[str]:
    """The word as it is, and what it may be the plural of."""
    found = {word}
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        found |= (
            {word[:-1]}
            | ({word[:-2]} if word.endswith("es") else set())
            | ({f"{word[:-3]}y"} if word.endswith("ies") else set())
        )
    return found


def _keys(called: str) -> set[str]:
    """What a class is found by: each of its names (commas, slashes part them) as one word; no single letters, no numbers."""
    found: set[str] = set()
    for words in map(_words, re.split(r"[,;/()]", called)):
        if len("".join(words)) > 1:
            found |= {"".join([*words[:-1], form]) for form in _forms(words[-1])}
    return found


def _classes_in(part: str, class_of: Mapping[str, str]) -> Iterator[str]:
    """The classes a folder's or file's name names, longest first: "polo-shirts" names "polo shirt", not "shirt"."""
    words, start = _words(part), 0
    if STOP.issuperset(words):
        return
    while start < len(words):
        for stop in range(min(len(words), start + 5), start, -1):
            forms = {"".join([*words[start : stop - 1], form]) for form in _forms(words[stop - 1])}
            if hit := next((class_of[form] for form in sorted(forms) if form in class_of), None):
                yield hit
                start = stop - 1
                break
        start += 1
