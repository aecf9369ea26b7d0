"""What a finished guard's folder says of its making, and whether the same command would still make it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.errors import StoreError, listed, shown
from ..core.options import is_whole
from ..core.sealed import file_hash
from ..core.threads import mapped
from ..core.types import Json
from ..data.listing import Listing
from .guard_images import facts_in
from .guard_inputs import GuardInputs, GuardJob

__all__ = ["check_same", "facts_of", "made_from"]


def facts_of(folder: Path) -> Json | None:
    """The facts that `oodream guard` has written into a folder; None where it has made none there."""
    facts = facts_in(folder)
    return facts if "command" in facts else None


def made_from(job: GuardJob, inputs: GuardInputs) -> Json:
    """Hashes of all that a guard is made of, by the option that names it: of files their contents, wherever
    they lie. Of pictures that are no files, those of the hub or of a data set by name, only the labels count.
    With the hash of pictures stands how many they are.
    """
    named = {"model": job.model, "weights": job.weights, "labels": job.labels}
    files = {name: _files(str(value)) for name, value in named.items() if value}
    sets = {name: _of_listings(listings) for name, listings in inputs.listings.items() if listings}
    return {**{name: _digest(map(file_hash, some)) for name, some in files.items() if some}, **sets}


def check_same(facts: Json, job: GuardJob, place: str) -> None:
    """Raises StoreError where the guard of these facts, at a place, is another command's, or where what it
    was made of has changed since.
    """
    remedy = "Add --redo to replace it as a whole, or choose another --out."
    if facts["command"] != job.command:
        raise StoreError(f"{shown(place)} holds the guard of another command: {facts['command']}\n{remedy}")
    now = made_from(job, GuardInputs(job))
    before = facts.get("made_from")
    if not isinstance(before, dict):  # earlier versions do not say
        return
    changed = [name for name, value in now.items() if _hash(before.get(name)) != _hash(value)]
    if changed:
        raise StoreError(
            f"{shown(place)} holds a finished guard, and what it was made of is not the same any more: "
            f"{listed(_counted(name, before.get(name), now[name]) for name in changed)}. {remedy}"
        )


def _hash(value: Json | str | None) -> str | None:
    """The hash in what `made_from` says of an option; earlier versions gave it alone."""
    return value.get("hash") if isinstance(value, dict) else value


def _counted(name: str, then: Json | str | None, now: Json | str) -> str:
    """An option, with how many pictures it meant and means."""
    if not isinstance(now, dict):
        return f"--{name}"
    before = then.get("pictures") if isinstance(then, dict) else None
    return f"--{name} ({now['pictures']:,} pictures{f', then {before:,}' if is_whole(before) else ''})"


def _files(named: str) -> list[Path]:
    """The files of a network, weights or names: one with those whose names begin as its own, for weights may
    lie in such, or all of a folder; none for what is no file.
    """
    place = Path(named.removeprefix("hf:"))
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.is_file())
    beside = place.parent.iterdir() if place.is_file() else ()
    return sorted(path for path in beside if path.name.startswith(place.name) and path.is_file())


def _of_listings(listings: Sequence[Listing]) -> Json:
    labels = (json.dumps([one.labels, one.classes]) for one in listings)
    digest = _digest([*labels, *mapped(file_hash, (file for one in listings for file in one.paths))])
    return {"pictures": sum(len(one.rows) for one in listings), "hash": digest}


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
