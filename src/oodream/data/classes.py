"""Class lists: the classes' names, their prompts, and the folders they belong to; built-in ones and files.

A list is a TOML file such as `classes.toml`. `[classes]` holds folder = "name", in the order of the labels.
`[prompts]` may hold name = "words": these words, the name among them, stand in the prompt in the name's
place, as in kite = "kite bird". `[aliases]` may hold folder = "name" for folders that show a class under
another name, as other data sets call it. Beside folders of pictures each table may be missing. Images are not
read here.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Formatter

from ..config import PROMPT
from ..core.errors import DataError, brief, did_you_mean, listed, shown
from ..core.files import ASSETS, MAX_TOML, parse_toml, read_text
from ..runtime.answers import UNKNOWN
from .images import Images

__all__ = [
    "check_count",
    "check_name",
    "check_names",
    "find",
    "folder_key",
    "lists",
    "named",
    "plain",
    "prompts_for",
    "read",
    "read_list",
    "renamed",
    "spans_for",
]

LISTS = ASSETS / "classes"
LONGEST = 200  # characters of a class's name
LINES = {"classes": 'folder = "name"', "prompts": 'kite = "kite bird"', "aliases": 'folder = "name"'}
"""The tables of a class list, with a line of each as an example."""


def lists() -> tuple[str, ...]:
    """The names of the built-in class lists."""
    return tuple(sorted(path.stem for path in LISTS.glob("*.toml")))


def find(source: str) -> Path:
    """The file of a built-in list, or the TOML file itself; DataError when it is neither."""
    path = LISTS / f"{source}.toml" if source in lists() else Path(source)
    if path.suffix != ".toml":
        raise DataError(
            f"There is no class list {source!r}. There are: {', '.join(lists())}; or name a TOML file."
        )
    return path


def named(source: str, template: str = PROMPT) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(names, prompts, folders) of a built-in list or a TOML file, by label.

    `template` has {} where the name's words go. Raises DataError for a list that does not exist or cannot be
    read, for two classes of one name, for one called `unknown`, for an alias of none, and
    where `prompts_for` does.
    """
    path = find(source)
    names, words, aliases = read_list(path)
    check_names(path, "aliases", aliases, [*names.values()])
    twins: dict[str, str] = {}
    for folder, name in names.items():
        if twin := twins.get(name.casefold()):
            raise DataError(f"{path}: {folder} and {twin} are both the class {brief(name)}. Rename one.")
        check_name(name, str(path), f"Give {folder} another name there.")
        twins[name.casefold()] = folder
    return tuple(names.values()), prompts_for(tuple(names.values()), words, template), tuple(names)


def read_list(path: Path) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """`read` of a list that says which classes there are; DataError where it names none."""
    by_folder, words, by_alias = read(path)
    if not by_folder:
        raise DataError(f"{path}: expected a table [classes] with lines such as {LINES['classes']}.")
    return by_folder, words, by_alias


def read(path: Path) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """(names by folder, prompt words by name, names by alias) of a TOML file, in its order, NFC.

    Every table may be missing: folders without a line are classes by their own names. DataError when the file
    is not as described above.
    """
    try:
        tables = parse_toml(read_text(path, 4 * MAX_TOML))
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read: {error}") from error
    for name, line in LINES.items():
        if not _texts(tables.get(name, {})):
            raise DataError(f"{path}: expected in the table [{name}] lines such as {line}.")
    if strange := tables.keys() - LINES.keys():
        raise DataError(
            f"{path}: only [classes], [prompts] and [aliases] are known, not {', '.join(sorted(strange))}."
        )
    by_folder, by_alias = (
        {unicodedata.normalize("NFC", folder): plain(text) for folder, text in tables.get(name, {}).items()}
        for name in ("classes", "aliases")
    )
    return by_folder, {plain(name): plain(text) for name, text in tables.get("prompts", {}).items()}, by_alias


def check_names(path: Path, table: str, shows: Mapping[str, str], names: Sequence[str]) -> None:
    """DataError where a table of a list says that a folder shows what is, in any case, none of the classes
    `names`.
    """
    known = {name.casefold() for name in names}
    if strange := [name for name in shows.values() if name.casefold() not in known]:
        raise DataError(
            f"{shown(path)}: [{table}] names {brief(strange[0])}, which is no class."
            f"{did_you_mean(strange[0], names)} There are {listed(names)}."
        )


def prompts_for(names: Sequence[str], words: Mapping[str, str], template: str = PROMPT) -> tuple[str, ...]:
    """A prompt for every name: `template` around its words, which are the name itself where `words` has none.

    Raises DataError for words of a name that is not there, or without their name as whole words (in any
    case), and for a template that has not one {}.
    """
    before, after = _around(template)
    return tuple(before + text + after for text, _ in _words_of(names, words))


def spans_for(
    names: Sequence[str], words: Mapping[str, str], template: str = PROMPT
) -> tuple[tuple[int, int], ...]:
    """Where in its prompt each class's name stands, as (start, stop) in characters, in the order of `names`.

    It is the name in the placeholder's words, whatever the rest of the template says; of several in the words
    the last. Raises DataError where `prompts_for` does.
    """
    start = len(_around(template)[0])
    return tuple((start + first, start + last) for _, (first, last) in _words_of(names, words))


def _around(template: str) -> tuple[str, str]:
    """The template's text before and after its one placeholder."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise DataError(f"The prompt {brief(template)} cannot be read: {error}.") from error
    fields = [i for i, part in enumerate(parts) if part[1] is not None]
    if len(fields) != 1 or parts[fields[0]][1:] != ("", "", None):
        raise DataError(
            f"The prompt {brief(template)} (decode.prompt) must hold {{}} once, where the class's name "
            "stands."
        )
    cut = fields[0] + 1
    before, after = ("".join(part[0] for part in side) for side in (parts[:cut], parts[cut:]))
    return before, after


def _words_of(names: Sequence[str], words: Mapping[str, str]) -> list[tuple[str, tuple[int, int]]]:
    """The words of every name, and where in them the name itself stands."""
    known = {*names}
    faults = [
        f"[prompts] names {brief(name)}, which is no class.{did_you_mean(name, names)}"
        for name in words
        if name not in known
    ]
    result = []
    for name in names:
        text = words.get(name, name)
        places = list(re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE))
        if places:
            result.append((text, places[-1].span()))
        else:
            faults.append(f"The prompt words {brief(text)} do not hold their class's name {brief(name)}.")
    if faults:
        raise DataError(listed(faults, " "))
    return result


def check_name(name: str, where: str, remedy: str) -> None:
    """DataError for a class's name that cannot be used, with `remedy` as what to do.

    `unknown` is what a classifier answers for what it does not know. Control characters could move a
    terminal's cursor, and a name longer than `LONGEST` is none. Half characters, as file names hold
    them for bytes that are no UTF-8, are in no prompt.
    """
    if name.casefold() == UNKNOWN:
        raise DataError(
            f"{where}: a class is called {name!r}, and that is the answer for images of no known class. "
            f"{remedy}"
        )
    if control := next((c for c in name if unicodedata.category(c) == "Cc"), ""):
        raise DataError(
            f"{where}: the class is called {name!r}, and {control!r} is no character to read. {remedy}"
        )
    if len(name) > LONGEST:
        raise DataError(
            f"{where}: the class's name has {len(name):,} characters, and may have {LONGEST}. {remedy}"
        )
    if name != name.encode(errors="ignore").decode():
        raise DataError(f"{where}: the class is called by bytes that are no UTF-8. {remedy}")


def folder_key(folder: str) -> str:
    """What a class list calls a folder: its name in NFC, with bytes that are no UTF-8 as \\xNN."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "backslashreplace"))


def renamed(images: Images, names: Sequence[str]) -> Images:
    """The same images with class names by label; DataError when there are not as many."""
    check_count(images.name, len(images.classes), names)
    return replace(images, classes=tuple(names))


def check_count(where: str, classes: int, names: Sequence[str]) -> None:
    """DataError where a list has not a name for every class."""
    if len(names) != classes:
        raise DataError(f"{where} has {classes} classes and the list names {len(names)}.")


def plain(name: str) -> str:
    """A name in NFC, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _texts(table: object) -> bool:
    return isinstance(table, Mapping) and all(
        isinstance(text, str) and text.strip() for text in table.values()
    )
