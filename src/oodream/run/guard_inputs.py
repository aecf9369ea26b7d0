"""What `oodream guard` is given: its options, known images in parts, and the unknown ones that a detector is
chosen on. All faults that can be known before a picture is opened are known once `GuardInputs` is made.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..config import Config, NetworkConfig
from ..core.errors import DataError, StoreError
from ..core.files import read_text, shown
from ..core.folders import is_within
from ..core.registry import make_all
from ..core.seeding import generator
from ..core.types import OOD
from ..data.classes import find, read
from ..data.folders import has_class_folders, list_ood, listing_of
from ..data.holdout import PSEUDO_OOD, disturbed
from ..data.images import Images, ImageSet, from_array
from ..data.inputs import DataInputs, named_folders
from ..data.listing import Listing
from ..data.source import DataSource
from ..data.splits import held_out_rows
from ..deploy.known import KnownParts, split_known
from ..detection.fit import Lesson, uses_outliers
from ..models.classifier import is_classifier
from .artifacts import Run
from .folder import read_manifest
from .lacking import lacks_outlier_images
from .lessons import lesson_of, run_of

__all__ = ["DISTURBED", "GROUPS", "SUPPOSED", "GuardInputs", "GuardJob", "Unknown", "read_labels"]

DISTURBED = "known images, disturbed, and classes left out"
CHANGED = 300  # known images that are disturbed to stand for unknown ones
MOST = 1000  # unknown images of each set to choose on or to learn from, and as many to measure on
SUPPOSED = (
    "The promise supposes that the network was not trained on the images that are held out. Where it was, "
    "give --data a folder with splits (train and test): the test images are held out then."
)
"""What a person must know of images without splits."""
GROUPS = ("near", "far")  # of unknown images
LEAST = 20  # images of a folder of unknown ones: half to choose on, half to measure on


@dataclass(frozen=True, kw_only=True)
class GuardJob(NetworkConfig):
    """A guard to be made: of which network, of which images, and into which folder. `cache` keeps the
    network's outputs for the next time; with `redo` a guard that is in the folder is replaced; `command` is
    what a person would type.
    """

    model: str
    data: str
    out: Path
    cache: Path
    weights: Path | None = None
    labels: Path | None = None
    root: str = ""
    classes: str = ""
    unlabelled: bool = False
    ood: tuple[str, ...] = ()
    outliers: str = ""
    any_accuracy: bool = False
    plugins: bool = False
    redo: bool = False
    command: str = ""


class Unknown(NamedTuple):
    """Unknown images: what the detector is chosen on, in words and as sets; what it is measured on; what
    teaches detectors that learn from outliers.
    """

    about: str
    choose: list[ImageSet]
    measure: list[ImageSet]
    teach: Images | Lesson | None


class GuardInputs:
    """The image sets of a job; `teaches` says whether one of its detectors learns from outliers. Raises
    DataError, StoreError or ValueError for whatever cannot be used.
    """

    def __init__(self, job: GuardJob) -> None:
        self.job = job
        detectors = make_all("detectors", job.detectors, job.detector_options)
        self.teaches = any(map(uses_outliers, detectors.values()))
        home = Path(job.data)
        self.labelled = not (job.unlabelled or (home.is_dir() and not has_class_folders(home)))
        self._folders = named_folders(job.ood, {*PSEUDO_OOD, "id", "mean", "outliers"}, GROUPS)
        for item in self._folders:
            if home.is_dir() and is_within(home, item.folder):
                raise DataError(
                    f"The OOD folder {shown(item.folder)} holds the known images of {shown(home)}."
                )
        self._ood = [(item, list_ood(item.folder, item.name)) for item in self._folders]
        for item, listing in self._ood:
            if len(listing.rows) < LEAST:
                raise DataError(
                    f"{shown(item.folder)} has {len(listing.rows)} images. It takes {LEAST}: half to choose "
                    "the detector on, half to measure it on."
                )
        self._outliers = _listed_outliers(job) if job.outliers else None
        self.other_names: dict[str, list[str]] = {}
        train, test = self._listings()
        self.classes = train.classes
        self.name = train.name
        self.parts: KnownParts = split_known(
            train, test, alpha=job.alpha, confidence=job.confidence or None, seed=job.seed, fit=job.fit,
            choose=job.choose, held_out=job.held_out,
        )  # fmt: skip
        self.has_splits = test is not None

    @property
    def listings(self) -> dict[str, list[Listing]]:
        """All image sets, by the option that names them."""
        parts = self.parts
        return {
            "data": [parts.fit, parts.choose, parts.held_out],
            "ood": [listing for _, listing in self._ood],
            "outliers": [self._outliers] if self._outliers is not None else [],
        }

    def known(self, size: int) -> tuple[Images, Images, Images]:
        """The images to fit to, to choose on, and those held out."""
        fit = self.parts.fit.read(size)
        return fit, self.parts.choose.read(size, fit.white), self.parts.held_out.read(size, fit.white)

    def unknown(self, fit: Images, choose: Images) -> Unknown:
        """Unknown images, by what they are for.

        Folders of real ones give one half to measure on, and one to choose on, of which a half teaches where
        detectors learn from outliers. Imagined outliers teach these detectors, beside the known images `fit`,
        and choose only where none learns from them. Without any real ones the detector is then chosen on
        `choose`, known images, disturbed, and on classes left out.
        """
        size, white = choose.size, choose.white
        outliers = self._taught(fit) if self.teaches and self._outliers is not None else None
        if self._ood:
            chosen: list[ImageSet] = []
            measured: list[ImageSet] = []
            teachers: list[Images] = []
            for item, listing in self._ood:
                images = self._read(listing, item.name, size, white)
                measure, rest = self._halves(images)
                if self.teaches and outliers is None:
                    rest, teacher = self._halves(rest)
                    teachers.append(teacher)
                for part, sets in ((measure, measured), (rest, chosen)):
                    sets.append(ImageSet(name=item.name, group=item.group, images=part))
            teach = _joined(teachers) if outliers is None else outliers
            return Unknown("real unknown images", chosen, measured, teach)
        if self._outliers is not None and not self.teaches:
            images = self._read(self._outliers, "outliers", size, white)
            chosen = [ImageSet(name="outliers", group="near", images=images)]
            return Unknown("imagined outliers", chosen, [], None)
        g = generator(self.job.seed, "disturbed", choose.name)
        rows = torch.randperm(len(choose), generator=g)[:CHANGED]
        return Unknown(DISTURBED, disturbed(choose, rows, self.job.seed), [], outliers)

    def _taught(self, fit: Images) -> Images | Lesson:
        """What outliers teach: those of a run as its training shows them, beside known images shown alike;
        those of another folder as they are.
        """
        if (run := run_of(Path(self.job.outliers), self.job.plugins)) is None:
            assert self._outliers is not None
            return self._read(self._outliers, "outliers", fit.size, fit.white)
        return lesson_of(run, fit)

    def _read(self, listing: Listing, name: str, size: int, white: float) -> Images:
        rows = torch.arange(len(listing.rows))
        if len(rows) > 2 * MOST:
            rows = torch.randperm(len(rows), generator=generator(self.job.seed, "most", name))[: 2 * MOST]
        return listing.subset(rows.sort().values.tolist()).read(size, white).as_ood(name)

    def _halves(self, images: Images) -> tuple[Images, Images]:
        order = torch.randperm(len(images), generator=generator(self.job.seed, "halves", images.name))
        first, second = (images.subset(rows.sort().values) for rows in order.tensor_split(2))
        return first, second

    def _listings(self) -> tuple[Listing, Listing | None]:
        job, exclude = self.job, {item.folder.resolve() for item in self._folders}
        if not self.labelled:
            home = Path(job.data)
            if not home.is_dir():
                raise DataError(f"{shown(home)} is not a folder, and images without labels lie in one.")
            return list_ood(home, exclude=exclude), None
        config = Config(data=job.data, root=job.root, classes=job.classes, seed=job.seed)
        source = DataSource(config, exclude)
        self.other_names = source.other_names()
        return self._as_its_run_split(source) or source.listings

    def _as_its_run_split(self, source: DataSource) -> tuple[Listing, Listing] | None:
        """The training and test images of the run that has trained the network, where it held some of these
        very images back itself: others it has been trained on. None for any other network and other images.

        Raises DataError where some of these images, in an OOD folder, were known ones to the run.
        """
        folder = Path(self.job.model)
        home = folder.resolve().parent.parent
        if not is_classifier(folder) or read_manifest(home) is None:
            return None
        c = Run.open(home, self.job.plugins).config
        theirs = DataInputs(c).source
        if source.listings[1] is not None or not _same_place(theirs.home, source.home):
            return None
        known = theirs.listings[0].of([name for name in theirs.known if name not in c.validate])
        parents = {path.parent for path in known.paths}
        for item in self._folders:
            if any(is_within(parent, item.folder) for parent in parents):
                again = shlex.join(["oodream", "run", "--data", str(theirs.home), "--ood", str(item.folder)])
                raise DataError(
                    f"The OOD folder {shown(item.folder)} has images that {shown(home)} has trained on as "
                    f"known ones. Name another folder, or train without them: {again}"
                )
        test = held_out_rows(torch.tensor(known.labels), known.classes, c.seed)
        train, held_out = (known.subset(rows.nonzero().flatten().tolist()) for rows in (~test, test))
        return train, held_out


def _same_place(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and one.resolve() == other.resolve()


def read_labels(file: Path) -> tuple[tuple[str, ...], ...]:
    """All names of every output of a network, from a file with one name a line, or from a class list in TOML,
    where a class's folder is a name, too.

    Raises DataError for a file that cannot be read or holds no name.
    """
    if file.suffix == ".toml":
        return tuple((name, folder) for folder, name in read(find(str(file)))[0].items())
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(file)} is no list of names: it should be text, with a name a line."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(file)} cannot be read: {error}") from error
    if not any(lines):
        raise DataError(
            f"{shown(file)} holds no names: write one a line, in the order of the network's outputs."
        )
    return tuple((line,) for line in lines if line)


def _listed_outliers(job: GuardJob) -> Listing:
    """The imagined images that a run's filters have kept and that people added, or a folder's images."""
    folder = Path(job.outliers)
    if (run := run_of(folder, job.plugins)) is None:
        return list_ood(folder, "outliers")
    if lacking := lacks_outlier_images(run, imagined=True):
        raise StoreError(
            f"There are no imagined images of outliers in {folder}: {lacking}. Name another run with "
            "--outliers, or a folder of images."
        )
    path, keep = run.files.path, run.keep_mask.nonzero().flatten().tolist()
    if len(keep) < LEAST:
        raise StoreError(f"{folder} has kept {len(keep)} imagined outliers, and it takes {LEAST}.")
    files = [*map(path, keep), *run.added.files]
    return listing_of("outliers", files, [OOD] * len(files), ())


def _joined(parts: list[Images]) -> Images | None:
    """The images of several sets as one of unknown images; None where there are none."""
    if not parts:
        return None
    pixels = torch.cat([part.batch(range(len(part))) for part in parts])
    return from_array("outliers", pixels, torch.full((len(pixels),), OOD), ())
