"""Class lists: the class words, what their prompts say, and the folders they belong to; built-in ones and `classes.toml` files.

A list is a TOML file. `[classes]` holds folder = "name", in the order of the labels; `[prompts]` may hold name = "words", and
these words, the name among them, then stand in the prompt in the name's place: kite = "kite bird"; `[aliases]` may hold
folder = "name" for other folders that show a class, as other data sets call it. Images are not read here.
"""

from __future__ import annotations

import difflib
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.errors import DataError
from ..core.files import ASSETS
from ..synthesis.text import TEMPLATE
from .images import Images

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTS = ASSETS / "classes"


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


def named(source: str, template: str = TEMPLATE) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(names, prompts, folders) of a built-in list or a TOML file, by label; `template` has {} where the name's words go.

    Raises DataError for a list that does not exist or cannot be read, two classes of one name, and where `prompts_for` does.
    """
    path = find(source)
    names, words, _ = read(path)
    seen: dict[str, str] = {}
    for folder, name in names.items():
        if twin := seen.get(name.casefold()):
            raise DataError(f"{path}: {folder} and {twin} are both the class {name!r}. Rename one.")
        seen[name.casefold()] = folder
    return tuple(names.values()), prompts_for(tuple(names.values()), words, template), tuple(names)


def read(path: Path) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """(names by folder, prompt words by name, names by alias) of a TOML file, in its order, NFC.

    DataError when it is not as described above.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not _texts(names := tables.pop("classes", None)):
        raise DataError(f'{path}: expected a table [classes] with lines such as folder = "name".')
    if not _texts(words := tables.pop("prompts", {})):
        raise DataError(f'{path}: expected in the table [prompts] lines such as kite = "kite bird".')
    if not _texts(aliases := tables.pop("aliases", {})):
        raise DataError(f'{path}: expected in the table [aliases] lines such as folder = "name".')
    if tables:
        raise DataError(
            f"{path}: only [classes], [prompts] and [aliases] are known, not {', '.join(tables)}."
        )
    by_folder, by_alias = (
        {unicodedata.normalize("NFC", folder): plain(name) for folder, name in table.items()}
        for table in (names, aliases)
    )
    if strange := sorted({*by_alias.values()} - {*by_folder.values()}):
        raise DataError(f"{path}: [aliases] names {strange[0]!r}, which is no class.")
    return by_folder, {plain(name): plain(text) for name, text in words.items()}, by_alias


def prompts_for(names: Sequence[str], words: Mapping[str, str], template: str = TEMPLATE) -> tuple[str, ...]:
    """A prompt for every name: `template` around its words, which are the name itself where `words` has none for it.

    Raises DataError for words of a name that is not there, or without their name as whole words (in any case).
    """
    for name, text in words.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise DataError(
                f"[prompts] names {name!r}, which is no class."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
        if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE):
            raise DataError(f"The prompt words {text!r} do not hold their class's name {name!r}.")
    return tuple(template.format(words.get(name, name)) for name in names)


def renamed(images: Images, names: Sequence[str]) -> Images:
    """The same images with class names by label; DataError when there are not as many."""
    if len(names) != len(images.classes):
        raise DataError(f"{images.name} has {len(images.classes)} classes and the list names {len(names)}.")
    return replace(images, classes=tuple(names))


def plain(name: str) -> str:
    """A name in NFC, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _texts(table: object) -> bool:
    return isinstance(table, Mapping) and all(
        isinstance(text, str) and text.strip() for text in table.values()
    )
