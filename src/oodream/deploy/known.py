"""Known images for a guard: which of them fit the detector, which choose it and which the threshold comes
from; and which output of the network means which of their classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.errors import DataError, listed
from ..core.seeding import generator
from ..data.classes import check_name
from ..data.listing import Listing
from ..runtime.calibration import least

__all__ = ["KnownParts", "Outputs", "output_names", "outputs_of", "split_known"]

LEAST = 20  # images to fit to, and as many to choose on
CHOOSE_SHARE, HELD_OUT_SHARE = 0.2, 0.4  # of images without splits
OF_TEST = 0.3  # of a split for testing that the detector is chosen on


@dataclass(frozen=True, kw_only=True)
class KnownParts:
    """Known images that the detector learns from, that it is chosen on, and that the threshold comes from."""

    fit: Listing
    choose: Listing
    held_out: Listing

    def __str__(self) -> str:
        fit, choose, held_out = (len(part.rows) for part in (self.fit, self.choose, self.held_out))
        return f"{fit:,} to fit to, {choose:,} to choose on, {held_out:,} held out for the threshold"


def split_known(
    train: Listing,
    test: Listing | None,
    *,
    alpha: float,
    confidence: float | None,
    seed: int,
    fit: int = 0,
    choose: int = 0,
    held_out: int = 0,
) -> KnownParts:
    """The parts of labelled or unlabelled images, drawn at random, so that held-out ones are like any others.

    With a `test` split detectors are fitted to `train` alone; without one all three come from `train`. The
    numbers are the most images of each part; 0 is no limit, and held-out images are never fewer than the
    guarantee needs.

    Raises DataError where there are too few, with the number that it takes.
    """
    needed = least(alpha, confidence)
    pool = test or train
    n, beside = len(pool.rows), LEAST if test else 2 * LEAST
    if n < needed + beside or len(train.rows) < LEAST:
        raise DataError(_too_few(train, test, alpha, confidence))
    drawn = torch.randperm(n, generator=generator(seed, "guard", pool.name)).tolist()
    held = max(needed, round((1 - OF_TEST if test else HELD_OUT_SHARE) * n))
    held = min(held, n - beside, max(needed, held_out or n))
    chosen = min(
        max(LEAST, round((OF_TEST if test else CHOOSE_SHARE) * n)), n - held - (0 if test else LEAST)
    )
    rest = chosen + held
    left = train.subset(sorted(drawn[rest:])) if test is None else train
    if 0 < fit < len(left.rows):
        order = torch.randperm(len(left.rows), generator=generator(seed, "fit", left.name))[:fit]
        left = left.subset(order.sort().values.tolist())
    return KnownParts(
        fit=_named(left, "fit"),
        choose=_named(pool.subset(sorted(drawn[held : held + min(chosen, choose or n)])), "choose"),
        held_out=_named(pool.subset(sorted(drawn[:held])), "held out"),
    )


def _named(listing: Listing, part: str) -> Listing:
    return replace(listing, name=f"{listing.name}, {part}", least=0)


def _too_few(train: Listing, test: Listing | None, alpha: float, confidence: float | None) -> str:
    needed = least(alpha, confidence)
    how = "on average" if confidence is None else f"with {confidence:.4g} confidence"
    pool, beside = (test, f"{LEAST} to choose the detector on") if test else (train, f"{2 * LEAST} others")
    n = len(pool.rows)
    if n >= needed + (LEAST if test else 2 * LEAST):
        return f"{train.name} has {len(train.rows)} images, and detectors learn from {LEAST} at least."
    return (
        f"{pool.name} has {n:,} images. To promise that at most {alpha:.2%} of known images are flagged, "
        f"{how}, takes "
        f"{needed:,} held-out images, and beside them {beside}: {needed + (LEAST if test else 2 * LEAST):,} "
        f"in "
        "all. Add images, or promise less: a larger --alpha, or --confidence 0 for a promise on average "
        f"({least(alpha, None):,} held-out images)."
    )


# Outputs and classes


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """`rows_C`: which of a network's outputs each class is; `remark` says what had to be supposed."""

    rows_C: Tensor
    remark: str = ""


def outputs_of(
    classes: Sequence[str],
    names: Sequence[Sequence[str]],
    outputs: int,
    where: str,
    others: Mapping[str, Sequence[str]] | None = None,
) -> Outputs:
    """The outputs, of a network that has as many as `outputs`, that mean the `classes` of the images in
    `where`.

    `names` are all names of every output, or none where they are not known: then the outputs are supposed to
    be in the order of the classes. Names are compared without case, and underscores are spaces. A network may
    know more classes. `others` are other names of the classes, such as their folders'.

    Raises DataError where the numbers differ and names do not tell which output is which class.
    """
    keys = Counter(key for own in names for key in {_key(name) for name in own})
    place = {
        key: row for row, own in enumerate(names) for key in {_key(name) for name in own} if keys[key] == 1
    }
    called = {name: [_key(other) for other in (name, *(others or {}).get(name, ()))] for name in classes}
    found = {name: place[key] for name, keys in called.items() for key in reversed(keys) if key in place}
    unmatched = [name for name in classes if name not in found]
    if names and not unmatched:
        rows = [found[name] for name in classes]
        if len({*rows}) < len(rows):
            twice = next(row for row in rows if rows.count(row) > 1)
            same = [name for name, row in zip(classes, rows, strict=True) if row == twice]
            raise DataError(f"{where}: {listed(same)} are one class to this network. Merge their folders.")
        return Outputs(rows_C=torch.tensor(rows))
    if names and len(unmatched) < len(classes):
        raise DataError(
            f"{where}: {len(unmatched)} of {len(classes)} classes are none that this network knows by name: "
            f"{listed(unmatched)}. Call them, or their folders, as the network does, or write what its "
            "outputs mean into a file, one name a line, and give it with --labels."
        )
    if len(classes) == outputs:
        order = "the order of the class folders" if len(classes) > 2 else "this order"
        return Outputs(
            rows_C=torch.arange(outputs),
            remark=f"The network's outputs are supposed to be in {order} ({listed(classes)}); --labels FILE "
            f"says "
            "otherwise.",
        )
    raise DataError(
        f"{where} has {len(classes):,} classes, and the network {outputs:,} outputs"
        + (" of other names" if names else "")
        + ". Write what its outputs mean into a file, one name a line in the order of the outputs, and give "
        "it "
        "with --labels; class folders may then be fewer."
    )


def output_names(names: Sequence[Sequence[str]], outputs: int) -> tuple[str, ...]:
    """A name for every output, each another one: its first name, or its number where it has none.

    Raises DataError for a name that no class may have.
    """
    if not names:
        return tuple(f"class {row}" for row in range(outputs))
    count = Counter(own[0] for own in names)
    result = tuple(
        own[0] if count[own[0]] == 1 else f"{own[0]} ({own[-1] if len(own) > 1 else row})"
        for row, own in enumerate(names)
    )
    for name in result:
        check_name(name, "The network's outputs", "Give other names with --labels.")
    return result


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
