"""audit.duplicates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.types import Json
from ..data.images import Images
from .finding import EXAMPLES, GROUPS, Finding, percent

LEAK = 0.01  # from this share of a set on, pictures it has in common with another are a problem, below it a warning
SIDE = 32  # pixels of the thumbnails that are compared
CONTRAST = 12.0  # grey levels (standard deviation) below which a picture is too plain to recognise
NEIGHBOURS = 3  # of every picture that are compared with it
ALIKE = 0.97  # least cosine of their spectra
APART = 0.07  # most that near-duplicates differ by: RMS of thumbnails in units of the picture's own contrast
GAIN = 1.35  # most that their contrasts differ by, as a factor
CELLS = 2**24  # cosines held at once


# Duplicates ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looks:
    """What N pictures are recognised by.

    `digest_N` (int64) hashes the pixels. `spectrum_NF` are the magnitudes of the lowest frequencies, of unit norm, which a shift
    leaves as they are; zero for pictures too plain to recognise. `thumb_NTT` (float16) are blurred grey thumbnails of mean zero,
    `smaller` (bool) where they are smaller than the pictures, so that a shift by a pixel is less than one of theirs.
    """

    digest_N: Tensor
    spectrum_NF: Tensor
    thumb_NTT: Tensor
    smaller: bool


def look(images: Images) -> Looks:
    """Reads a whole set once. About 2.4 kB are kept of a picture, whatever its size."""
    digests, spectra, thumbs = zip(*(_look(x) for x, _ in images.batches(_batch(images))), strict=True)
    return Looks(torch.cat(digests), torch.cat(spectra), torch.cat(thumbs), smaller=images.size > SIDE)


def _batch(images: Images) -> int:
    return max(1, min(1024, 2**24 // (3 * images.size**2)))


def _look(x_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hashes = (hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in x_B3HW.contiguous().numpy())
    digest_B = torch.tensor([int.from_bytes(h, "little", signed=True) for h in hashes])
    x = x_B3HW.float() if x_B3HW.shape[-1] <= SIDE else F.adaptive_avg_pool2d(x_B3HW.float(), SIDE)
    (r, g, b), side = x.unbind(1), x.shape[-1]
    grey = 0.299 * r + 0.587 * g + 0.114 * b
    thumb = grey - grey.mean((1, 2), keepdim=True)
    parts = [_magnitudes(thumb, 4)]
    for colour in (b - grey, r - grey):
        tint = colour.mean((1, 2), keepdim=True)
        parts += [_magnitudes(colour - tint, 2), tint[:, 0] * side]
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    blurred = F.conv2d(
        F.pad(thumb[:, None], (1, 1, 1, 1), mode="replicate"), (kernel[:, None] * kernel)[None, None]
    )[:, 0]
    plain = thumb.flatten(1).std(1) < CONTRAST
    return digest_B, F.normalize(torch.cat(parts, 1), dim=1).masked_fill(plain[:, None], 0), blurred.half()


def _magnitudes(x_BHW: Tensor, cycles: int) -> Tensor:
    """Magnitudes of the frequencies of at most `cycles` cycles per picture in either direction, one of each conjugate pair."""
    f = torch.fft.rfft2(x_BHW, norm="ortho").abs()[:, :, : cycles + 1]
    return torch.cat([f[:, : cycles + 1].flatten(1), f[:, -cycles:, 1:].flatten(1)], 1)


def apart(a_PTT: Tensor, b_PTT: Tensor, subpixel: bool) -> Tensor:
    """How far P pairs of thumbnails are apart at the best shift by up to one pixel: RMS (P,) after both got mean 0 and norm 1.

    0 is equal, 1.41 unrelated. With `subpixel` what a further shift of up to half a pixel explains, to first order, does not count
    (Lucas & Kanade 1981).
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
    slopes = (
        torch.stack(
            [mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1], mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2]], 3
        ).flatten(1, 2)
        / 2
    )
    rest = (a - b).unflatten(1, (inner, inner))[:, 1:-1, 1:-1].flatten(1)[:, :, None]
    gram = slopes.mT @ slopes + 1e-9 * torch.eye(2)
    by = torch.linalg.solve(gram, slopes.mT @ rest).clamp(-0.5, 0.5)
    return (rest - slopes @ by).norm(dim=1)[:, 0] * inner / (inner - 2)


def nearest_duplicates(a: Looks, b: Looks) -> tuple[Tensor, Tensor]:
    """For every picture of `b` the row of the one in `a` that it duplicates (-1: none), and how far they are apart: 0 if equal.

    Where `a` is `b` a picture's partner is an earlier one. Near-duplicates are among the NEIGHBOURS with the nearest spectra, at
    most APART away and by at most GAIN lighter or darker; plain pictures have only equal partners.
    """
    row_N, apart_N = torch.full((len(b.digest_N),), -1), torch.full((len(b.digest_N),), torch.inf)
    k = min(NEIGHBOURS, len(a.digest_N) - (a is b))
    step = max(1, CELLS // len(a.digest_N))
    for start in range(0, len(b.digest_N) if k > 0 else 0, step):
        cosine = b.spectrum_NF[start : start + step] @ a.spectrum_NF.T
        if a is b:
            here = torch.arange(len(cosine))
            cosine[here, start + here] = -1
        value, at = cosine.topk(k, dim=1)
        query, nth = (value >= ALIKE).nonzero(as_tuple=True)
        for part in (slice(i, i + 1024) for i in range(0, len(query), 1024)):
            mine, other = start + query[part], at[query[part], nth[part]]
            pair = b.thumb_NTT[mine].float(), a.thumb_NTT[other].float()
            rms, gain = (
                apart(*pair, subpixel=a.smaller),
                torch.stack([x.flatten(1).std(1) for x in pair]).log(),
            )
            rms[gain.diff(dim=0)[0].abs() > math.log(GAIN)] = torch.inf
            later, earlier = (
                (torch.maximum(mine, other), torch.minimum(mine, other)) if a is b else (mine, other)
            )
            rms = rms.clamp(min=1e-4)  # 0 is for equal pictures alone
            apart_N.scatter_reduce_(0, later, rms, "amin")
            nearest = rms == apart_N[later]
            row_N[later[nearest]] = earlier[nearest]
    digest, first = np.unique(a.digest_N.numpy(), return_index=True)
    place = np.searchsorted(digest, b.digest_N.numpy()).clip(max=len(digest) - 1)
    equal, same = torch.from_numpy(first[place]), torch.from_numpy(digest[place]) == b.digest_N
    if a is b:
        same &= equal < torch.arange(len(same))
    row_N[same], apart_N[same] = equal[same], 0
    return row_N.masked_fill(apart_N > APART, -1), apart_N


# What pictures in two sets mean, and what to do. "ood" stands for near and far.
SHARED = {
    ("train", "test"): "Accuracy on them is memory. Take them out of one of the two.",
    ("train", "outliers"): "Training calls the same picture known and unknown. Drop these outliers.",
    (
        "train",
        "ood",
    ): "The classifier learns them as known, and they count as unknown. Take them out of one of the two.",
    ("test", "outliers"): "Training calls pictures of the test set unknown. Drop these outliers.",
    ("test", "ood"): "The same picture counts as known and as unknown. Take them out of one of the two.",
    (
        "outliers",
        "ood",
    ): "Training calls them unknown, so to find them unknown proves nothing. Drop these outliers.",
}
REPEATED = {
    "train": "They weigh more than the others in training. Keep one of each.",
    "outliers": "They weigh more than the others in training. Keep one of each.",
    "test": "The set is smaller than it seems, and its intervals are too narrow. Keep one of each.",
    "ood": "The set is smaller than it seems, and its intervals are too narrow. Keep one of each.",
}


def duplicates(sets: Mapping[str, tuple[str, Images]]) -> Iterator[Finding]:
    """Pictures that are in two sets, or twice in one, and equal training pictures with different labels; controls are left out."""
    role = {
        name: "ood" if group in ("near", "far") else group
        for name, (group, _) in sets.items()
        if group != "control"
    }
    names = sorted(role, key=lambda name: GROUPS.index(sets[name][0]))
    looks = {name: look(sets[name][1]) for name in names}
    clean = 0
    for i, a in enumerate(names):
        for b in names[i:]:
            if a != b and role[a] == role[b]:
                continue
            row_N, apart_N = nearest_duplicates(looks[a], looks[b])
            rows = (row_N >= 0).nonzero()[:, 0]
            if not len(rows):
                clean += 1
                continue
            n, count, equal = len(row_N), len(rows), int((apart_N[rows] == 0).sum())
            share = count / n
            where = "an earlier one of the set" if a == b else f"one of {a}"
            bits = f"{'all' if equal == count else equal or 'none'} to the last bit"
            severity = (
                ("warning" if share >= LEAK else "fine")
                if a == b
                else "problem"
                if share >= LEAK
                else "warning"
            )
            yield Finding(
                kind="duplicates", sets=(a,) if a == b else (a, b), count=count, share=share, severity=severity,
                message=f"{count:,} of {n:,} pictures of {b} ({percent(share)}) show the same as {where}, {bits}. "
                + (REPEATED[role[a]] if a == b else SHARED[role[a], role[b]]),
                examples=tuple(
                    _pair(sets, (a, b), (int(row_N[row]), int(row)), float(apart_N[row]))
                    for row in rows[apart_N[rows].argsort(stable=True)][:EXAMPLES]
                ),
            )  # fmt: skip
    if clean:
        yield Finding(
            kind="duplicates", sets=tuple(names), count=0, share=0.0, severity="fine",
            message=f"Comparisons of two sets, or of a set with itself, that found no picture twice: {clean}.",
        )  # fmt: skip
    for name in names:
        if role[name] == "train":
            yield from _mislabelled(name, sets, looks[name].digest_N)


def _pair(
    sets: Mapping[str, tuple[str, Images]], names: tuple[str, str], rows: tuple[int, int], rms: float
) -> Json:
    files = [sets[name][1].files[row] for name, row in zip(names, rows, strict=True)]
    return {"sets": [*names], "rows": [*rows], "files": files, "apart": round(rms, 4)}


def _mislabelled(name: str, sets: Mapping[str, tuple[str, Images]], digest_N: Tensor) -> Iterator[Finding]:
    """Equal pictures of one set with different labels."""
    images = sets[name][1]
    order = np.lexsort((images.labels.numpy(), digest_N.numpy()))
    digest, label = digest_N.numpy()[order], images.labels.numpy()[order]
    turns = ((digest[1:] == digest[:-1]) & (label[1:] != label[:-1])).nonzero()[0]
    count = int(np.isin(digest, digest[turns]).sum())
    share = count / len(images)
    examples = [
        _pair(sets, (name, name), rows, 0.0)
        | {"labels": [images.classes[images.labels[row]] for row in rows]}
        for rows in ((int(order[t]), int(order[t + 1])) for t in turns[:EXAMPLES])
    ]
    yield Finding(
        kind="labels", sets=(name,), count=count, share=share, examples=tuple(examples),
        severity="fine" if not count else "problem" if share >= LEAK else "warning",
        message=f"{count:,} of {len(images):,} pictures of {name} ({percent(share)}) have an equal one with another label. "
        + ("Nobody can name them rightly, and a detector that calls them unknown has a point. Correct the labels or drop them."
           if count else "So far as equal pictures tell, the labels agree."),
    )  # fmt: skip
