"""Images that are in two sets, or twice in one, and equal training images with different labels.

Equal means equal pixels. Nearly equal images are found in two steps: the nearest spectra of low frequencies
(a shift leaves magnitudes alone) give candidates, and thumbnails decide at the best shift by up to a pixel.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.types import Json
from ..data.images import Images, ImageSet
from .finding import EXAMPLES, GROUPS, Finding, percent
from .reading import batches

__all__ = ["Fingerprints", "distance", "duplicates", "fingerprint", "nearest_duplicates"]

PROBLEM = (
    0.01  # share of a set from which images that it has in common with another are a problem, else a warning
)
SIDE = 32  # pixels of the thumbnails that are compared
MIN_CONTRAST = 12.0  # gray levels (standard deviation) below which an image is too plain to recognise
NEIGHBOURS = 3  # candidates for every image
MIN_COSINE = 0.97  # of two near-duplicates' spectra
MAX_DISTANCE = 0.07  # of two near-duplicates' thumbnails: RMS in units of the image's own contrast
MAX_GAIN = 1.35  # ratio of two near-duplicates' contrasts
MIN_DISTANCE = 1e-4  # of images that are not equal; 0 is for equal ones alone
CELLS = 2**22  # cosines held at once
PAIRS = 128  # thumbnails compared at once: what is made of them fits the cache


@dataclass(frozen=True)
class Fingerprints:
    """What N images are recognised by.

    `digest_N` (int64) hashes the pixels. `spectrum_NF` are the magnitudes of the lowest frequencies, of unit
    norm, which a shift leaves as they are; zero for images too plain to recognise. `thumb_NTT` (float16) are
    blurred gray thumbnails of mean zero. `smaller` says that thumbnails are smaller than the images, so that
    a shift by a pixel of the image is less than one of the thumbnail.
    """

    digest_N: Tensor
    spectrum_NF: Tensor
    thumb_NTT: Tensor
    smaller: bool

    def __len__(self) -> int:
        return len(self.digest_N)

    @cached_property
    def log_contrast_N(self) -> Tensor:
        """The logarithm of the thumbnails' standard deviations."""
        return torch.cat([part.float().flatten(1).std(1) for part in self.thumb_NTT.split(PAIRS)]).log()


def fingerprint(images: Images) -> Fingerprints:
    """Reads a whole set once. About 2.4 kB are kept of an image, whatever its size."""
    digests, spectra, thumbs = zip(*map(_fingerprint, batches(images)), strict=True)
    return Fingerprints(torch.cat(digests), torch.cat(spectra), torch.cat(thumbs), smaller=images.size > SIDE)


def _fingerprint(x_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hashes = (hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in x_B3HW.contiguous().numpy())
    digest_B = torch.tensor([int.from_bytes(h, "little", signed=True) for h in hashes])
    x = x_B3HW.float() if x_B3HW.shape[-1] <= SIDE else F.adaptive_avg_pool2d(x_B3HW.float(), SIDE)
    (r, g, b), side = x.unbind(1), x.shape[-1]
    gray = 0.299 * r + 0.587 * g + 0.114 * b
    thumb = gray - gray.mean((1, 2), keepdim=True)
    parts = [_magnitudes(thumb, 4)]
    for colour in (b - gray, r - gray):
        tint = colour.mean((1, 2), keepdim=True)
        parts += [_magnitudes(colour - tint, 2), tint[:, 0] * side]
    plain = thumb.flatten(1).std(1) < MIN_CONTRAST
    spectrum = F.normalize(torch.cat(parts, 1), dim=1).masked_fill(plain[:, None], 0)
    return digest_B, spectrum, _blurred(thumb).half()


def _blurred(x_BHW: Tensor) -> Tensor:
    """Blurred a little. Pictures are the channels here, and channels are last: of all ways to lay one channel
    out, PyTorch takes the least time for this one.
    """
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel_B133 = (kernel[:, None] * kernel).expand(len(x_BHW), 1, 3, 3)
    padded = F.pad(x_BHW[None], (1, 1, 1, 1), mode="replicate").contiguous(memory_format=torch.channels_last)
    return F.conv2d(padded, kernel_B133, groups=len(x_BHW))[0].contiguous()


def _magnitudes(x_BHW: Tensor, cycles: int) -> Tensor:
    """Magnitudes of the frequencies of at most `cycles` cycles per image in either direction.

    Of each conjugate pair there is one.
    """
    f = torch.fft.rfft2(x_BHW, norm="ortho")[:, :, : cycles + 1]
    return torch.cat([f[:, : cycles + 1].flatten(1), f[:, -cycles:, 1:].flatten(1)], 1).abs()


def distance(a_PTT: Tensor, b_PTT: Tensor, subpixel: bool) -> Tensor:
    """RMS distance (P,) of P pairs of thumbnails of mean 0 and norm 1, at the best shift by up to one pixel.

    0 is equal, 1.41 unrelated. With `subpixel` what a further shift of up to half a pixel explains, to first
    order, does not count (Lucas & Kanade 1981).
    """
    inner = a_PTT.shape[-1] - 2
    a = a_PTT[:, 1:-1, 1:-1].flatten(1)
    a = F.normalize(a - a.mean(1, keepdim=True), dim=1)
    b = b_PTT.unfold(1, inner, 1).unfold(2, inner, 1).flatten(3).flatten(1, 2)  # (P, 9, inner * inner)
    norm = (b.square().mean(2) - b.mean(2).square()).clamp(min=1e-6).sqrt() * inner
    best, shift = (torch.bmm(b, a[:, :, None])[:, :, 0] / norm).max(1)
    if not subpixel:
        return (2 - 2 * best).clamp(min=0).sqrt()
    b = b[torch.arange(len(b)), shift]
    b = F.normalize(b - b.mean(1, keepdim=True), dim=1)
    mean = ((a + b) / 2).unflatten(1, (inner, inner))
    down, across = mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1], mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2]
    slopes = torch.stack([down, across], 3).flatten(1, 2) / 2
    rest = (a - b).unflatten(1, (inner, inner))[:, 1:-1, 1:-1].flatten(1)[:, :, None]
    gram = slopes.mT @ slopes + 1e-9 * torch.eye(2)
    by = torch.linalg.solve(gram, slopes.mT @ rest).clamp(-0.5, 0.5)
    return (rest - slopes @ by).norm(dim=1)[:, 0] * inner / (inner - 2)


def nearest_duplicates(a: Fingerprints, b: Fingerprints) -> tuple[Tensor, Tensor]:
    """For every image of `b` the row of its duplicate in `a` (N,), -1 for none, and their distance (N,), 0 if
    equal.

    Where `a` is `b` an image's duplicate is an earlier one. Near-duplicates are among the NEIGHBOURS with the
    nearest spectra, at a distance of at most MAX_DISTANCE and with contrasts that differ by at most MAX_GAIN.
    Plain images have only equal duplicates.
    """
    row_N, distance_N = torch.full((len(b),), -1), torch.full((len(b),), torch.inf)
    for later, earlier, rms in _candidates(a, b):
        distance_N.scatter_reduce_(0, later, rms, "amin")
        nearest = rms == distance_N[later]
        row_N[later[nearest]] = earlier[nearest]
    digest, first = np.unique(a.digest_N.numpy(), return_index=True)
    place = np.searchsorted(digest, b.digest_N.numpy()).clip(max=len(digest) - 1)
    equal, same = torch.from_numpy(first[place]), torch.from_numpy(digest[place]) == b.digest_N
    if a is b:
        same &= equal < torch.arange(len(same))
    row_N[same], distance_N[same] = equal[same], 0
    return row_N.masked_fill(distance_N > MAX_DISTANCE, -1), distance_N


def _candidates(a: Fingerprints, b: Fingerprints) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pairs with similar spectra and contrasts, in parts: rows of `b` and of `a`, and their distances.

    Where `a` is `b` the first row is the later one of the two.
    """
    k = min(NEIGHBOURS, len(a) - (a is b))
    step = max(1, CELLS // len(a))
    for start in range(0, len(b) if k > 0 else 0, step):
        cosine = b.spectrum_NF[start : start + step] @ a.spectrum_NF.T
        if a is b:
            here = torch.arange(len(cosine))
            cosine[here, start + here] = -1
        value, at = cosine.topk(k, dim=1)
        query, nth = (value >= MIN_COSINE).nonzero(as_tuple=True)
        similar = start + query, at[query, nth]
        gain = (a.log_contrast_N[similar[1]] - b.log_contrast_N[similar[0]]).abs()
        mine, other = (rows[~(gain > math.log(MAX_GAIN))] for rows in similar)
        for part in zip(mine.split(PAIRS), other.split(PAIRS), strict=True):
            pair = b.thumb_NTT[part[0]].float(), a.thumb_NTT[part[1]].float()
            rms = distance(*pair, subpixel=a.smaller).clamp(min=MIN_DISTANCE)
            yield (*((torch.maximum(*part), torch.minimum(*part)) if a is b else part), rms)


# What images in two sets mean, and what to do. "ood" stands for near and far. Sets of other pairs may share
# images: two OOD sets, and test images with shifted ones, which may be made of them.
SHARED = {
    ("train", "test"): "Accuracy on them is memory. Take them out of one of the two.",
    ("train", "outliers"): "Training labels the same image known and unknown. Drop these outliers.",
    ("train", "ood"): "The classifier learns them as known, and they count as unknown. "
    "Take them out of one of the two.",
    ("test", "outliers"): "Training labels images of the test set unknown. Drop these outliers.",
    ("train", "shift"): "Accuracy under shift on them is memory. Take them out of one of the two.",
    ("test", "ood"): "The same image counts as known and as unknown. Take them out of one of the two.",
    (
        "outliers",
        "ood",
    ): "Training labels them unknown, so flagging them proves nothing. Drop these outliers.",
    ("outliers", "shift"): "Training labels images of known classes unknown. Drop these outliers.",
    ("shift", "ood"): "The same image counts as known and as unknown. Take them out of one of the two.",
}
_WEIGHT = "They weigh more than the others in training. Keep one of each."
_SIZE = "The set is smaller than it seems, and its intervals are too narrow. Keep one of each."
REPEATED = {"train": _WEIGHT, "outliers": _WEIGHT, "test": _SIZE, "shift": _SIZE, "ood": _SIZE}


def duplicates(sets: Sequence[ImageSet]) -> Iterator[Finding]:
    """Images that are in two sets or twice in one, and equal training images with different labels.

    Sets of group "control" are left out.
    """
    by_group = sorted(sets, key=lambda s: GROUPS.index(s.group))
    images = {s.name: s.images for s in by_group if s.group != "control"}
    roles = {s.name: "ood" if s.group in ("near", "far") else s.group for s in sets}
    prints = {name: fingerprint(x) for name, x in images.items()}
    names, clean = list(images), 0
    for i, a in enumerate(names):
        for b in (b for b in names[i:] if a == b or (roles[a], roles[b]) in SHARED):
            row_N, distance_N = nearest_duplicates(prints[a], prints[b])
            if (row_N >= 0).any():
                yield _duplicated({a: images[a], b: images[b]}, (roles[a], roles[b]), row_N, distance_N)
            else:
                clean += 1
    if clean:
        yield Finding(
            kind="duplicates",
            sets=tuple(names),
            count=0,
            share=0.0,
            severity="fine",
            message=f"Comparisons of two sets, or of a set with itself, that found no image twice: {clean}.",
        )
    for name in names:
        if roles[name] == "train":
            yield _mislabelled(name, images[name], prints[name].digest_N)


def _duplicated(
    images: Mapping[str, Images], roles: tuple[str, str], row_N: Tensor, distance_N: Tensor
) -> Finding:
    """Images of the last of one or two sets that are in the first one, too: at `row_N`, as
    `nearest_duplicates`.
    """
    first, last = next(iter(images)), list(images)[-1]
    rows = (row_N >= 0).nonzero()[:, 0]
    count, share = len(rows), len(rows) / len(row_N)
    if first == last:
        where, advice = "an earlier one of the set", REPEATED[roles[0]]
        severity = "warning" if share >= PROBLEM else "fine"
    else:
        where, advice = f"one of {first}", SHARED[roles]
        severity = "problem" if share >= PROBLEM else "warning"
    equal = int((distance_N[rows] == 0).sum())
    examples = rows[distance_N[rows].argsort(stable=True)][:EXAMPLES].tolist()
    return Finding(
        kind="duplicates",
        sets=tuple(images),
        count=count,
        share=share,
        severity=severity,
        message=f"{count:,} of {len(row_N):,} images of {last} ({percent(share)}) show the same as {where}, "
        f"{'all' if equal == count else equal or 'none'} to the last bit. {advice}",
        examples=tuple(
            _pair(images, (first, last), (int(row_N[row]), row), float(distance_N[row])) for row in examples
        ),
    )


def _pair(images: Mapping[str, Images], names: tuple[str, str], rows: tuple[int, int], rms: float) -> Json:
    files = [images[name].files[row] for name, row in zip(names, rows, strict=True)]
    return {"sets": [*names], "rows": [*rows], "files": files, "apart": round(rms, 4)}


def _mislabelled(name: str, images: Images, digest_N: Tensor) -> Finding:
    """Equal images of one set with different labels."""
    order = np.lexsort((images.labels.numpy(), digest_N.numpy()))
    digest, label = digest_N.numpy()[order], images.labels.numpy()[order]
    turns = ((digest[1:] == digest[:-1]) & (label[1:] != label[:-1])).nonzero()[0]
    count = int(np.isin(digest, digest[turns]).sum())
    share = count / len(images)
    pairs = [(int(order[turn]), int(order[turn + 1])) for turn in turns[:EXAMPLES]]
    meaning = (
        "No classifier can name them correctly, and a detector that flags them is not wrong. "
        "Correct the labels or drop these images."
        if count
        else "As far as equal images show, the labels agree."
    )
    return Finding(
        kind="labels",
        sets=(name,),
        count=count,
        share=share,
        severity="fine" if not count else "problem" if share >= PROBLEM else "warning",
        message=f"{count:,} of {len(images):,} images of {name} ({percent(share)}) have an equal one with "
        f"another label. {meaning}",
        examples=tuple(
            _pair({name: images}, (name, name), rows, 0.0)
            | {"labels": [images.classes[images.labels[row]] for row in rows]}
            for rows in pairs
        ),
    )
