"""What a run leaves, compared with what another one left."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

__all__ = ["artefacts", "differing", "finished_files", "leftovers"]

# What differs between two undisturbed runs: times, and sizes and hashes of what holds them.
MEASURED = {"seconds", "memory", "seal", "bytes", "index.html", "synthesis", "training"}
PLACES = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|(?:\d+ h )?\d+ min\b(?: \d+ s\b)?|[\d.]+ s\b|width:[\d.]+%"
)
HIDDEN = re.compile(r"\..+\.(?:[0-9a-f]{8}|new)")


def artefacts(run: Path) -> dict[str, str]:
    """A hash of every file of a run, by name, without what differs between two undisturbed runs."""
    return {
        str(file.relative_to(run)): hashlib.blake2b(_content(file, run), digest_size=8).hexdigest()
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.name not in (".lock", "process.json")
    }


def differing(run: Path, other: Path) -> list[str]:
    """The names of files that are not the same in both, or lie in one alone."""
    a, b = artefacts(run), artefacts(other)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def finished_files(run: Path) -> dict[str, tuple[int, int]]:
    """Number and time of the files of finished stages, and of finished images: they must stay as they are."""
    stages = [stamp.parent for stamp in run.rglob("stage.json")]
    files = [file for stage in stages for file in stage.rglob("*") if file.is_file()]
    files += [file for file in run.rglob("*.png") if not file.name.startswith(".")]
    return {str(file.relative_to(run)): ((s := file.stat()).st_ino, s.st_mtime_ns) for file in files}


def leftovers(run: Path) -> list[str]:
    """Half-written files and folders."""
    return sorted(str(p.relative_to(run)) for p in run.rglob(".*") if HIDDEN.fullmatch(p.name))


def _content(file: Path, run: Path) -> bytes:
    data = file.read_bytes()
    if file.name.startswith("comparison.") and file.suffix != ".json":
        return b""  # seconds and bytes stand in all its rows; comparison.json has the same numbers
    if file.suffix == ".html":
        text = PLACES.sub("", data.decode()).replace(str(run), "RUN").replace(run.name, "RUN")
        return re.sub(r"<dl class=\"stages\">.*?</dl>", "", text, flags=re.S).encode()
    if file.name in ("stage.json", "run.json", "comparison.json"):
        text = data.decode().replace(str(run), "RUN").replace(run.name, "RUN")
        return json.dumps(_without(json.loads(text))).encode()
    return data


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in sorted(value.items()) if key not in MEASURED}
    return [_without(item) for item in value] if isinstance(value, list) else value
