"""What a finished guard's folder says of its making, and whether the same command would still make it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
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

EACH = 8  # digits of a picture's hash


def facts_of(folder: Path) -> Json | None:
    """The facts that `oodream guard` has written into a folder; None where it has made none there."""
    facts = facts_in(folder)
    return facts if "command" in facts else None


def made_from(job: GuardJob, inputs: GuardInputs) -> Json:
    """Hashes of all that a guard is made of, by the option that names it: of files their contents, wherever
    they lie. Of pictures that are no files, those of the hub or of a data set by name, only the labels count.
    With the hash of pictures stands how many they are, and the beginning of each one's hash: eight digits, of
    all pictures in one text.
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
    now = made_from(job, inputs := GuardInputs(job))
    before = facts.get("made_from")
    if not isinstance(before, dict):  # earlier versions do not say
        return
    changed = [name for name, value in now.items() if _hash(before.get(name)) != _hash(value)]
    if changed:
        raise StoreError(
            f"{shown(place)} holds a finished guard, and what it was made of is not the same any more: "
            f"{listed(_told(name, before.get(name), now[name], inputs) for name in changed)}. {remedy}"
        )


def _hash(value: Json | str | None) -> str | None:
    """The hash in what `made_from` says of an option; earlier versions gave it alone."""
    return value.get("hash") if isinstance(value, dict) else value


def _told(name: str, then: Json | str | None, now: Json | str, inputs: GuardInputs) -> str:
    """An option, with how many pictures it meant and means, and those that it did not mean."""
    if not isinstance(now, dict):
        return f"--{name}"
    earlier = then if isinstance(then, dict) else {}
    before, each = earlier.get("pictures"), earlier.get("each")  # earlier versions say neither
    told = f"{now['pictures']:,} pictures{f', then {before:,}' if is_whole(before) else ''}"
    if isinstance(each, str) and (new := _unknown(_paths(inputs.listings[name]), now["each"], each)):
        told += f"; changed or new are {len(new):,}: {listed(map(shown, new))}"
    return f"--{name} ({told})"


def _unknown(files: Sequence[Path], now: str, then: str) -> list[Path]:
    """Those of the files whose hashes, by their beginnings `now`, were not among those of `then`."""
    left, new = Counter(_parts(then)), []
    for file, part in zip(files, _parts(now), strict=True):
        left[part] -= 1
        if left[part] < 0:
            new.append(file)
    return new


def _parts(each: str) -> list[str]:
    return [each[i : i + EACH] for i in range(0, len(each), EACH)]


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
    hashes = [*mapped(file_hash, _paths(listings))]
    return {
        "pictures": sum(len(one.rows) for one in listings),
        "hash": _digest([*labels, *hashes]),
        "each": "".join(one[:EACH] for one in hashes),
    }


def _paths(listings: Sequence[Listing]) -> list[Path]:
    return [file for one in listings for file in one.paths]


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
