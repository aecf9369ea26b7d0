"""What goes into a run, as the configuration names it: known images, unknown ones, and known ones otherwise.

All that can be known of the inputs without opening a picture is known after `DataInputs.check`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import torch

from ..config import Config
from ..core.errors import DataError, listed, shown
from ..core.folders import is_within
from ..core.results import CORRUPTED
from ..core.seeding import generator
from .builtin import FAR_SETS
from .classes import prompts_for, spans_for
from .corruptions import CORRUPTIONS, SEVERITIES, corrupted
from .folders import list_ood
from .holdout import check_left_out, hold_out
from .images import Images, ImageSet
from .listing import Listing
from .real import WORLD, check_real, list_real
from .remote import with_local_copies
from .shifted import check_shifted, list_shifted
from .source import UNKNOWN_SET, DataSource

__all__ = ["CONTROL", "DataInputs", "NamedFolder", "named_folders"]

CONTROL = "reconstructed"
RESERVED = frozenset({*FAR_SETS, UNKNOWN_SET, "near", "far", "id", "mean", "left-out", CONTROL})
"""What no folder of images is called, for other sets are, or means over sets."""
OF_ONE = frozenset({"_given", "config", "real"})
"""What `DataInputs` has from options that its images do not depend on."""


class DataInputs:
    """The image sets of a configuration, read when they are first needed."""

    def __init__(self, config: Config) -> None:
        self._given = config

    def under(self, config: Config) -> DataInputs:
        """The inputs of a configuration that names the same images and the same sets to measure on. What has
        been read is not read again.
        """
        other = DataInputs(config)
        vars(other).update({name: it for name, it in vars(self).items() if name not in OF_ONE})
        return other

    @cached_property
    def config(self) -> Config:
        """The configuration with folders on this machine."""
        return with_local_copies(self._given)

    def check(self) -> None:
        """Raises DataError for every fault of the inputs that can be known before a picture is opened."""
        if both := [name for name in self.config.validate if name in self.config.unknown]:
            raise DataError(
                f"--unknown and --validate both name {listed(both)}: what is unknown cannot be left out of "
                "the known classes. Name it in one of them."
            )
        check_left_out(self.source.known, self.config.validate)
        self.prompts(self.classes)
        test = [item.folder for item in (*self.ood_folders, *self.shifted_folders)]
        check_real(self.config.regularize, self.source.home, test)
        self._check_real_names()
        if not self.config.validate:
            _ = self._ood_listings, self._shifted_listings

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that are trained on, known before a picture is opened."""
        return tuple(name for name in self.source.known if name not in self.config.validate)

    @property
    def train(self) -> Images:
        """ID images to train on."""
        return self._held_out[0] if self.config.validate else self._data[0]

    @property
    def test(self) -> Images:
        """ID images to measure on."""
        return self._held_out[1] if self.config.validate else self._data[1]

    @cached_property
    def ood(self) -> list[ImageSet]:
        """The OOD test sets: the user's, classes that are unknown, the data set's own near sets, and the
        built-in far ones.
        """
        sets = self._held_out[2] if self.config.validate else self._ood_sets()
        if (ratio := self.config.evaluate.ood_ratio) == 0:
            return sets
        most = max(1, round(ratio * len(self.test)))

        def cut(images: Images, name: str) -> Images:
            rows = torch.randperm(len(images), generator=generator(self.config.seed, "cut", name))
            return images.subset(rows[:most])

        return [replace(item, images=cut(item.images, item.name)) for item in sets]

    @cached_property
    def shifted(self) -> list[ImageSet]:
        """The user's sets of known classes that look otherwise; none where classes are left out."""
        listings = () if self.config.validate else self._shifted_listings
        return [ImageSet(name=one.name, group="shift", images=self._read(one)) for one in listings]

    @cached_property
    def world(self) -> Images:
        """Real images of other things, labelled by their names, which may be trained on as outliers: the
        oracle. Nothing in it is of a class that is known, left out, unknown, or shown by a near set.

        Raises DataError where the data set has none, or where it holds such a class.
        """
        return self.source.world(self.config.size)

    @cached_property
    def real(self) -> Images | None:
        """Real images of other things to train on in place of imagined outliers, labelled by their names or
        folders; None where none are asked for.

        Raises DataError where the data set is asked for its own and has none.
        """
        if self.config.regularize.outliers != "real":
            return None
        place = self.config.regularize.real
        return self.world if place == WORLD else self._read(list_real(Path(place)))

    def shift_sets(self) -> Iterator[tuple[str, int, Images]]:
        """Name, severity and images of every shifted set, one at a time: the user's (severity 0), then
        corrupted test images.
        """
        for item in self.shifted:
            yield item.name, 0, item.images
        if (n := self.config.shift.n_corrupted) > 0:
            for kind in CORRUPTIONS:
                for severity in SEVERITIES:
                    yield kind, severity, corrupted(self.test, kind, severity, n, self.config.seed)

    def prompts(self, names: Sequence[str]) -> tuple[str, ...]:
        """Each class's prompt: the template, with the words that the class list has for it."""
        return prompts_for(names, self.source.words(names), self.config.decode.prompt)

    def prompt_spans(self, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
        """Where each class's name stands in its prompt, as (start, stop) in characters."""
        return spans_for(names, self.source.words(names), self.config.decode.prompt)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of unknown classes, as far as they have some: of those left out of the data, or else of those
        that are unknown or shown by the data set's own near set.
        """
        named = self.source.named
        return self.config.validate or (*self.config.unknown, *(named.near_classes if named else ()))

    # Known images

    @cached_property
    def _held_out(self) -> tuple[Images, Images, list[ImageSet]]:
        return hold_out(self._data[0], self.config.validate, self.config.seed)

    @cached_property
    def _data(self) -> tuple[Images, Images]:
        """(training, test) images of the known classes, before any are held back."""
        return self.source.read(self.config.size)

    @cached_property
    def source(self) -> DataSource:
        """Where the known images come from."""
        folders = (*self.ood_folders, *self.shifted_folders)
        return DataSource(self.config, {item.folder.resolve() for item in folders})

    # Other images

    def _ood_sets(self) -> list[ImageSet]:
        size, far = self.config.size, self.config.evaluate.n_far
        return [
            *(
                ImageSet(name=listing.name, group=item.group, images=self._read(listing))
                for item, listing in zip(self.ood_folders, self._ood_listings, strict=True)
            ),
            *self.source.near(size, self._white),
            *(
                ImageSet(name=name, group="far", images=make(size, far, 0), about=about)
                for name, (make, about) in FAR_SETS.items()
            ),
        ]

    def _read(self, listing: Listing) -> Images:
        """A set beside the known images; its deep pictures have their white, as for a guard in use."""
        return listing.read(self.config.size, self._white)

    @property
    def _white(self) -> float:
        return self._data[0].white or self.config.white

    @cached_property
    def ood_folders(self) -> list[NamedFolder]:
        """The user's folders of OOD images."""
        return named_folders(self.config.ood, RESERVED, ("near", "far"))

    @cached_property
    def shifted_folders(self) -> list[NamedFolder]:
        """The user's folders of known classes that look otherwise."""
        taken = {item.name for item in self.ood_folders}
        return named_folders(self.config.shifted, {*RESERVED, CORRUPTED, *CORRUPTIONS, *taken})

    @cached_property
    def _ood_listings(self) -> list[Listing]:
        inside = {item.folder.resolve() for item in self.ood_folders}
        listings = []
        for item in self.ood_folders:
            _check_apart(item.folder, self.source.home)
            listings.append(list_ood(item.folder, item.name, inside - {item.folder.resolve()}))
        return listings

    @cached_property
    def _shifted_listings(self) -> list[Listing]:
        source, ood = self.source, [item.folder for item in self.ood_folders]
        listings = []
        for item in self.shifted_folders:
            check_shifted(item.folder, source.home, ood)
            unknown = self.config.unknown
            listings.append(list_shifted(item.folder, source.known, source.names_file, item.name, unknown))
        return listings

    def _check_real_names(self) -> None:
        """DataError where real outliers are, by the names of their folders, of a class that they must not
        show.
        """
        place = self.config.regularize.real
        if place == WORLD:
            _ = self.world
        elif place:
            self.source.check_world([path.name for path in Path(place).iterdir() if path.is_dir()])


def _check_apart(folder: Path, home: Path | None) -> None:
    """DataError where a folder of OOD images holds the folder of the known ones."""
    if home and is_within(home, folder):
        raise DataError(
            f"The OOD folder {shown(folder)} holds the known images of {shown(home)}. "
            "Put the OOD images into a folder of their own."
        )


@dataclass(frozen=True, kw_only=True)
class NamedFolder:
    """A folder of images with the set's name and group."""

    name: str
    group: str
    folder: Path


def named_folders(
    options: Sequence[str], reserved: Collection[str], groups: Sequence[str] = ()
) -> list[NamedFolder]:
    """Options such as FOLDER, NAME=FOLDER and, with `groups` near and far, near=FOLDER and near:NAME=FOLDER.

    A set without a name is called as its folder, with as many of the folders above it as tell it from the
    other sets and the `reserved` names: SUN/images beside dtd/images. Its group is the last of `groups` where
    the option has none. Raises DataError for a name that is taken, a folder given twice, and what is no
    folder.
    """
    parsed = [_parsed(option, groups) for option in options]
    taken = {name.casefold() for name in reserved}
    for option, (name, _, folder) in zip(options, parsed, strict=True):
        if folder == Path() and not option.endswith("."):
            raise DataError(f"{option!r} names no folder: write NAME=FOLDER, or a folder alone.")
        if not folder.is_dir():
            raise DataError(f"{shown(folder)} is not a folder.")
        if name and name.casefold() in taken:
            raise DataError(f"Another image set is called {name!r}. Call {shown(folder)} otherwise.")
        taken |= {name.casefold()} - {""}
    paths = [folder.resolve() for _, _, folder in parsed]
    if len(set(paths)) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise DataError(f"The folder {shown(twice)} is given twice.")
    return [
        NamedFolder(
            name=name or _shortest(path, [p for p in paths if p != path], taken), group=group, folder=folder
        )
        for (name, group, folder), path in zip(parsed, paths, strict=True)
    ]


def _parsed(option: str, groups: Sequence[str]) -> tuple[str, str, Path]:
    """(name or nothing, group, folder) of an option; a folder whose path has a = is taken as such."""
    label, equals, path = option.partition("=")
    last = groups[-1] if groups else ""
    if not equals or "/" in label or "\\" in label or Path(option).is_dir():
        return "", last, Path(option)
    if label in groups:
        return "", label, Path(path)
    group, _, name = label.rpartition(":")
    meant = _meant(group or name, groups)
    if (group in groups and not name) or (group not in groups and meant):
        hint = f" Did you mean {meant!r}?" if group not in groups else ""
        known = ", ".join(f"{group}=FOLDER, {group}:NAME=FOLDER" for group in groups)
        raise DataError(
            f"{option!r} names no group that there is.{hint} Write {known}, or another NAME=FOLDER."
        )
    return (name, group, Path(path)) if group in groups else (label, last, Path(path))


def _meant(word: str, groups: Sequence[str]) -> str:
    """The group that a word is a slip of; empty for other words, such as "bear", which is a name."""
    near = get_close_matches(word.casefold(), groups, 1, 0.75)
    return near[0] if near and near[0][0] == word[0].casefold() else ""


def _shortest(path: Path, others: Sequence[Path], taken: Collection[str]) -> str:
    """As many of a path's last parts as no other path ends with, and no set is called."""
    for depth in range(1, len(path.parts)):
        name = shown("/".join(path.parts[-depth:]))
        if name.casefold() not in taken and all(p.parts[-depth:] != path.parts[-depth:] for p in others):
            return name
    raise DataError(f"Give the folder {shown(path)} a name: NAME={shown(path)}.")
