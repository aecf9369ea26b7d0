"""A user's images in the place of a protocol's: known classes in folders, unknown pictures in others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from ..config import Config
from ..core.errors import shown
from ..data.builtin import FAR_SETS
from ..data.images import Images
from ..data.inputs import DataInputs
from ..data.source import UNKNOWN_SET
from .locate import FoundSet, Located
from .protocol import SHIFTED, Protocol, ProtocolSet

__all__ = ["OwnImages"]

KNOWN_SETS = {"train": "ID/train", "test": "ID/test"}
"""What the sets of known images are called, so that no folder of unknown ones is: by group."""


class OwnImages:
    """The images that the options of a run name, as a run reads them: split by the seed where they have no
    splits, with the built-in far sets beside the user's unknown ones.

    Raises DataError for every fault of theirs that can be known before a picture is opened.
    """

    def __init__(self, config: Config) -> None:
        self.far = config.evaluate.n_far
        self.config = replace(config, evaluate=replace(config.evaluate, n_far=1))  # the protocol has these
        self.inputs = DataInputs(self.config)
        self.inputs.check()

    @cached_property
    def protocol(self) -> Protocol:
        """The sets and classes; its size is not known."""
        return Protocol(
            name=Path(self.config.data).resolve().name,
            about=f"The images of {shown(self.config.data)}",
            classes=self.inputs.source.known,
            labels={},
            digest="",
            size=0,
            sets=tuple(self._sets()),
        )

    def locate(self, groups: Collection[str]) -> Located:
        """The sets of these groups, all of which are there."""
        found = [self._found(item) for item in self.protocol.sets if item.group in groups]
        return Located(protocol=self.protocol, found=tuple(found))

    def _found(self, item: ProtocolSet) -> FoundSet:
        if item.builtin:
            return FoundSet(set=item, place="built in")
        folders = (*self.inputs.ood_folders, *self.inputs.shifted_folders)
        place = next((one.folder for one in folders if one.name == item.name), self.config.data)
        return FoundSet(set=item, place=shown(place), read=partial(self._read, item))

    def _sets(self) -> Iterator[ProtocolSet]:
        for group, name in KNOWN_SETS.items():
            yield ProtocolSet(name=name, group=group)
        for item in self.inputs.ood_folders:
            yield ProtocolSet(name=item.name, group=item.group)
        if self.config.unknown:
            yield ProtocolSet(name=UNKNOWN_SET, group="near")
        if (named := self.inputs.source.named) and named.near_classes:
            yield ProtocolSet(name="near", group="near")
        for name in FAR_SETS:
            yield ProtocolSet(name=name, group="far", builtin=name, count=self.far)
        for item in self.inputs.shifted_folders:
            yield ProtocolSet(name=item.name, group=SHIFTED)

    def _read(self, item: ProtocolSet, size: int) -> Images:
        """A set's images as squares of this size."""
        if size != self.inputs.config.size:
            self.inputs = DataInputs(replace(self.config, size=size))
        if item.group in KNOWN_SETS:
            return self.inputs.train if item.group == "train" else self.inputs.test
        others = self.inputs.shifted if item.group == SHIFTED else self.inputs.ood
        return next(one.images for one in others if one.name == item.name)
