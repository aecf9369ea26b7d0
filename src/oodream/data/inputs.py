"""What goes into a run: known images, unknown ones, and known ones that look otherwise, as the configuration names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch

from ..config import Config
from ..core.seeding import generator
from .builtin import FAR_SETS, FASHION_ID, fashion, near
from .classes import find, named, prompts_for, read, renamed
from .corruptions import CORRUPTIONS, SEVERITIES, corrupted
from .folders import load_folder, load_ood, load_shifted
from .holdout import hold_out
from .hub import load_hub
from .images import Images

FASHION_DATA = ("fashion", "fashion-full")
CONTROL = "reconstructed"


class DataInputs:
    """The image sets of a configuration, read when they are first needed."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def data(self) -> tuple[Images, Images]:
        """ID images for training and testing."""
        return self._validation[:2] if self.config.validate else self._given

    @cached_property
    def ood(self) -> dict[str, tuple[str, Images]]:
        """OOD test sets by name, with their group."""
        sets = self._validation[2] if self.config.validate else self._given_ood
        if (ratio := self.config.evaluate.ood_ratio) == 0:
            return sets
        most = max(1, round(ratio * len(self.data[1])))

        def cut(name: str, images: Images) -> Images:
            return images.subset(
                torch.randperm(len(images), generator=generator(self.config.seed, "cut", name))[:most]
            )

        return {name: (group, cut(name, images)) for name, (group, images) in sets.items()}

    @cached_property
    def shifted(self) -> dict[str, Images]:
        """The user's folders of known classes that look otherwise, by name."""
        c, (_, test) = self.config, self.data
        sets: dict[str, Images] = {}
        for folder in () if c.validate else c.shifted:
            images = load_shifted(Path(folder), c.size, test.classes, self._class_list)
            if images.name in {*sets, *CORRUPTIONS, "mean"}:
                raise ValueError(
                    f"The shifted folder {folder} is called as another set is ({images.name}). Rename it."
                )
            sets[images.name] = images
        return sets

    def disturbed(self) -> Iterator[tuple[str, int, Images]]:
        """Name, severity and images of every shifted set, one at a time: the user's (severity 0), then corrupted test images."""
        for name, images in self.shifted.items():
            yield name, 0, images
        if (n := self.config.evaluate.n_corrupted) > 0:
            for kind in CORRUPTIONS:
                for severity in SEVERITIES:
                    yield kind, severity, corrupted(self.data[1], kind, severity, n, self.config.seed)

    @cached_property
    def _validation(self) -> tuple[Images, Images, dict[str, tuple[str, Images]]]:
        return hold_out(self._given[0], self.config.validate, self.config.seed)

    @cached_property
    def _given(self) -> tuple[Images, Images]:
        config = self.config
        if config.data in FASHION_DATA:
            full = config.data == "fashion-full"
            return tuple(
                fashion(split, FASHION_ID, size=config.size, full=full) for split in ("train", "test")
            )  # type: ignore[return-value]
        if config.data.startswith("hub:"):
            found = load_hub(config.data.removeprefix("hub:"), config.size, seed=config.seed)
            return (
                found
                if self._class_list is None
                else tuple(renamed(images, named(config.classes)[0]) for images in found)
            )  # type: ignore[return-value]
        return load_folder(Path(config.data), config.size, seed=config.seed, classes=self._class_list)

    @cached_property
    def _class_list(self) -> Path | None:
        return find(self.config.classes) if self.config.classes else None

    def prompts(self, names: Sequence[str]) -> tuple[str, ...]:
        """Each class's prompt: the template, with the words that the class list has for it."""
        own = Path(self.config.data) / "classes.toml"
        source = self._class_list or (own if own.is_file() else None)
        words = read(source)[1] if source else {}
        return prompts_for(
            names, {name: text for name, text in words.items() if name in names}, self.config.decode.prompt
        )

    @cached_property
    def _given_ood(self) -> dict[str, tuple[str, Images]]:
        """The near sets of Fashion-MNIST only beside Fashion-MNIST."""
        config = self.config
        sets: dict[str, tuple[str, Images]] = {}
        for folder in config.ood:
            group, _, path = (
                folder.rpartition("=") if folder.startswith(("near=", "far=")) else ("far", "", folder)
            )
            images = load_ood(Path(path), config.size)
            if images.name in {*sets, *FAR_SETS, "near", "id", "mean", CONTROL}:
                raise ValueError(
                    f"The OOD folder {path} is called as another set is ({images.name}). Rename it."
                )
            sets[images.name] = (group, images)
        if config.data in FASHION_DATA:
            sets["near"] = ("near", near(config.size, full=config.data == "fashion-full"))
        return sets | {
            name: ("far", make(config.size, config.evaluate.n_far, 0)) for name, (make, _) in FAR_SETS.items()
        }
