"""Where the images of `--data` come from, a folder, the hub or a named data set, and which of its classes are
known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ..config import Config
from ..core.errors import DataError, did_you_mean, listed, shown
from .classes import find, named, read
from .folders import list_folder
from .holdout import check_left_out
from .hub import list_hub
from .images import Images, ImageSet
from .listing import Listing
from .real import WORLD
from .sets import SETS
from .splits import read_splits, split

__all__ = ["UNKNOWN_SET", "DataSource"]

HUB = "hub:"
UNKNOWN_SET = "unknown"  # the near-OOD set of the classes that `--unknown` names


class DataSource:
    """The labelled images that a configuration names. No class folders are in `exclude` (resolved paths)."""

    def __init__(self, config: Config, exclude: Collection[Path] = ()) -> None:
        self.config, self.exclude = config, exclude
        self.named = SETS.get(config.data)

    @cached_property
    def root(self) -> Path | None:
        """The folder that a named data set is read from, if any.

        Raises DataError where it is missing, or of no use.
        """
        data, root = self.config.data, self.config.root
        if root and (self.named is None or self.named.root == "none"):
            rooted = [name for name, item in SETS.items() if item.root != "none"]
            raise DataError(f"--data {shown(data)} reads no --root. It is for {listed(rooted)}.")
        if root and not Path(root).is_dir():
            raise DataError(f"{shown(root)} is not a folder.")
        if not root and self.named and self.named.root == "required":
            raise DataError(
                f"--data {data} needs --root FOLDER, a folder that holds {self.named.holds}. For a folder of "
                f"class folders that is called so, write --data ./{data}."
            )
        return Path(root) if root else None

    @property
    def is_packaged(self) -> bool:
        """Whether the images are the package's own."""
        return self.named is not None and self.named.root == "none"

    @cached_property
    def home(self) -> Path | None:
        """The folder that the images lie in; None where they are the package's or the hub's."""
        if self.named or self.config.data.startswith(HUB):
            return self.root
        return Path(self.config.data)

    @cached_property
    def listings(self) -> tuple[Listing, Listing | None]:
        """(training, test) pictures of all labelled classes, or (all, None) where there are no splits."""
        root, data, class_list = self.root, self.config.data, self.config.classes
        if self.named:
            return self.named.listings(root)
        if data.startswith(HUB):
            return list_hub(data.removeprefix(HUB), named(class_list)[0] if class_list else None)
        return list_folder(Path(data), self.class_list, self.exclude)

    @cached_property
    def known(self) -> tuple[str, ...]:
        """The classes that are not unknown; DataError for unknown ones that do not exist, or too many."""
        names, unknown = self.listings[0].classes, self.config.unknown
        for name in unknown:
            if name not in names:
                hint = did_you_mean(name, names)
                raise DataError(
                    f"--unknown names {name!r}, which is no class of {shown(self.config.data)}.{hint} "
                    f"There are {listed(names)}."
                )
        check_left_out(names, unknown)
        return tuple(name for name in names if name not in unknown)

    def read(self, size: int) -> tuple[Images, Images]:
        """(training, test) images of the known classes; pictures of unknown ones are not opened."""
        c, (train, test) = self.config, self.listings
        return read_splits(
            train.of(self.known),
            test and test.of(self.known),
            size,
            seed=c.seed,
            white=c.white,
            max_per_class=c.max_per_class,
        )

    def near(self, size: int, white: float) -> list[ImageSet]:
        """Near-OOD sets: the test images of the classes that are unknown, and what a named data set has."""
        sets = self.named.near(self.root, size) if self.named else []
        if not self.config.unknown:
            return sets
        names = tuple(name for name in self.listings[0].classes if name in self.config.unknown)
        train, test = self.listings
        if test is None:
            images = split(train.of(names).read(size, white), self.config.seed)[1]
        else:
            images = test.of(names).read(size, white)
        unknown = ImageSet(
            name=UNKNOWN_SET,
            group="near",
            images=images.as_ood(UNKNOWN_SET),
            about=f"test images of classes that are unknown: {listed(names)}",
        )
        return [unknown, *sets]

    # Names

    @cached_property
    def class_list(self) -> Path | None:
        """The class list that the configuration names, if any."""
        return find(self.config.classes) if self.config.classes else None

    @cached_property
    def names_file(self) -> Path | None:
        """The class list with other names of the classes, and of their folders: the configuration's, or else
        the data's own.
        """
        if self.class_list:
            return self.class_list
        if self.named:
            return find(self.named.class_list) if self.named.class_list else None
        own = Path(self.config.data) / "classes.toml"
        return own if own.is_file() else None

    def words(self, names: Sequence[str]) -> Mapping[str, str]:
        """The prompt words of those of the classes that have some."""
        words = read(self.names_file)[1] if self.names_file else {}
        return {name: text for name, text in words.items() if name in names}

    def other_names(self) -> dict[str, list[str]]:
        """Other names of the classes in their list: folders, aliases and the words of prompts."""
        if self.names_file is None:
            return {}
        by_folder, words, by_alias = read(self.names_file)
        names = {name: [text] for name, text in words.items()}
        for other, name in (*by_folder.items(), *by_alias.items()):
            names.setdefault(name, []).append(other)
        return names

    # The world of other things

    def world(self, size: int) -> Images:
        """Real images of other things; DataError where there are none, or `check_world` refuses them."""
        images = self.named.world(self.root, size) if self.named else None
        if images is None:
            place = f"; or put captioned pictures into {shown(self.root / 'world')}" if self.root else ""
            raise DataError(
                f'{shown(self.config.data)} has no collection of other things of its own, which "{WORLD}" '
                "stands for. In its place name a folder of pictures for real outliers (--regularize.real "
                f"FOLDER), and words for imagined ones (--sample.options words=moon,river){place}."
            )
        self.check_world(images.classes)
        return images

    def check_world(self, names: Sequence[str]) -> None:
        """Raises DataError where other things, by the names of their classes or their captions, hold a class
        that is known, left out, unknown or shown by a near set, under its own name or another in the list.
        """
        near = self.named.near_classes if self.named else ()
        others = self.other_names()
        class_of = {
            text.casefold(): name
            for name in (*self.listings[0].classes, *near)
            for text in (name, *others.get(name, ()))
        }
        keys = {name: name.replace("_", " ").casefold() for name in names}
        if held := [name for name, key in keys.items() if key in class_of]:
            pairs = [
                f"{name} ({class_of[keys[name]]})" if class_of[keys[name]] != name else name for name in held
            ]
            raise DataError(
                "A collection of other things must hold no class of the data, and this one holds classes of "
                f"{shown(self.config.data)}: {listed(pairs)}. Take their pictures out."
            )
