"""Data sets that `--data` knows by name: one file here is one data set, and `SETS` is the table of them."""

from __future__ import annotations

from .base import NamedData
from .cifar10 import Cifar10
from .doodles import Doodles
from .fashion import Fashion

__all__ = ["SETS", "NamedData"]

SETS: dict[str, NamedData] = {
    "fashion": Fashion(about="a sample of Fashion-MNIST, in the package: 8 known classes, 2 near ones"),
    "fashion-full": Fashion(
        about="all of Fashion-MNIST: Debian's package, the hub or the IDX files below --root",
        full=True,
        root="optional",
    ),
    "doodles": Doodles(about="Quick, Draw!, in the package: 42 known things, 71 near ones, a world of 201"),
    "cifar10": Cifar10(),
}
