"""The verb `audit`: what makes out-of-distribution (OOD) numbers lie, looked for in the image sets themselves.

Pictures that are in two sets; traces of files and pixels by which sets differ whatever they show; known classes that OOD sets
name; equal pictures with different labels; a reconstructed-ID control that is not at 50 %. Image sets in, findings out: nothing is
removed, and nothing is known here of runs, folders or pages. A finding is a reason to look, with examples to look at.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .images import DataError, Images, listed
from .metrics import auroc, bootstrap, interval
from .seeding import generator
from .types import Json, Row

GROUPS = ("train", "test", "outliers", "near", "far", "control")
SEVERITIES = ("problem", "warning", "fine")
EXAMPLES = 6
LEAK = 0.01  # from this share of a set on, pictures it has in common with another are a problem, below it a warning
SEPARATES, LEANS = 0.95, 0.75  # AUROC from which file facts are a problem, and a warning
TRACES = 0.9  # AUROC from which pixel statistics are a warning; they see some content, too
CONTROL_WARNS, CONTROL_FAILS = 0.05, 0.1  # how far from 50 % the control may be
SAMPLE = 2000  # images of a set whose statistics are taken
SIDE = 32  # pixels of the thumbnails that are compared
CONTRAST = 12.0  # grey levels (standard deviation) below which a picture is too plain to recognise
NEIGHBOURS = 3  # of every picture that are compared with it
ALIKE = 0.97  # least cosine of their spectra
APART = 0.07  # most that near-duplicates differ by: RMS of thumbnails in units of the picture's own contrast
GAIN = 1.35  # most that their contrasts differ by, as a factor
CELLS = 2**24  # cosines held at once


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked: what was seen, how bad it is, what it means and what to do, in words.

    `kind` is duplicates, labels, files, pixels, names or control. `sets` names the sets concerned, the last one first of all:
    `count` of its images are, which is `share` of them. For files, pixels and control `count` images were compared, and `share` is
    the AUROC. `examples` are JSON objects: of duplicates and labels the `sets`, `rows` and `files` of two pictures and how far they
    are `apart`, of files and pixels each `statistic` with its `auroc`, of names the `class`, the `file` and the `count`.
    """

    kind: str
    sets: tuple[str, ...]
    count: int
    share: float
    severity: str
    message: str
    examples: tuple[Json, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All findings, worst first, and the sets looked at: name -> group."""

    sets: Mapping[str, str]
    findings: tuple[Finding, ...]

    def __getitem__(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [f for f in self.findings if f.severity == severity]


def audit(
    sets: Mapping[str, tuple[str, Images]], classes: Sequence[str], *,
    words: Mapping[str, Sequence[str]] | None = None, control: Sequence[Row] = (), seed: int = 0,
) -> Audit:  # fmt: skip
    """Findings about image sets {name: (group, images)}; the groups are those of GROUPS, and "test" must be among them.

    `classes` are the known classes' names, `words` other names of theirs by class. `control` are rows measured on reconstructed ID
    images. Sets of group "control" are made from test images: only their statistics are looked at. `seed` draws the samples and
    folds of the statistics. ValueError for another group, no test set, an empty set or sets of different sizes.
    """
    if unknown := {group for group, _ in sets.values()} - {*GROUPS}:
        raise ValueError(f"An image set's group is one of {', '.join(GROUPS)}, not {sorted(unknown)[0]!r}.")
    if empty := [name for name, (_, images) in sets.items() if not len(images)]:
        raise DataError(f"There are no images in {listed(empty)}. Leave the set out or fill it.")
    if len(sizes := {images.size for _, images in sets.values()}) > 1:
        raise DataError(f"The sets have images of different sizes ({listed(map(str, sorted(sizes)))} pixels). Read them at one.")
    if "test" not in (group for group, _ in sets.values()):
        raise ValueError("An audit compares with the ID test images: name a set of group 'test'.")
    found = [*duplicates(sets), *separated(sets, seed), *named(sets, classes, words or {}), *controlled(control)]
    found.sort(key=lambda f: SEVERITIES.index(f.severity))
    return Audit(sets={name: group for name, (group, _) in sets.items()}, findings=tuple(found))


def percent(share: float) -> str:
    """A share in [0, 1] as "12.3 %"."""
    return f"{100 * share:.1f}\u00a0%"


def to_json(done: Audit) -> Json:
    """An audit as JSON values."""
    return asdict(done)


def from_json(values: Json) -> Audit:
    """The audit that `to_json` wrote."""
    findings = (Finding(**{**f, "sets": tuple(f["sets"]), "examples": tuple(f["examples"])}) for f in values["findings"])
    return Audit(sets=values["sets"], findings=tuple(findings))


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
    blurred = F.conv2d(F.pad(thumb[:, None], (1, 1, 1, 1), mode="replicate"), (kernel[:, None] * kernel)[None, None])[:, 0]
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
    slopes = torch.stack([mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1], mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2]], 3).flatten(1, 2) / 2
    rest = (a - b).unflatten(1, (inner, inner))[:, 1:-1, 1:-1].flatten(1)[:, :, None]
    gram = slopes.mT @ slopes + 1e-9 * torch.eye(2)
    by = torch.linalg.solve(gram, slopes.mT @ rest).clamp(-0.5, 0.5)
    return (rest - slopes @ by).norm(dim=1)[:, 0] * inner / (inner - 2)


def partners(a: Looks, b: Looks) -> tuple[Tensor, Tensor]:
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
            rms, gain = apart(*pair, subpixel=a.smaller), torch.stack([x.flatten(1).std(1) for x in pair]).log()
            rms[gain.diff(dim=0)[0].abs() > math.log(GAIN)] = torch.inf
            later, earlier = (torch.maximum(mine, other), torch.minimum(mine, other)) if a is b else (mine, other)
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
    ("train", "ood"): "The classifier learns them as known, and they count as unknown. Take them out of one of the two.",
    ("test", "outliers"): "Training calls pictures of the test set unknown. Drop these outliers.",
    ("test", "ood"): "The same picture counts as known and as unknown. Take them out of one of the two.",
    ("outliers", "ood"): "Training calls them unknown, so to find them unknown proves nothing. Drop these outliers.",
}
REPEATED = {
    "train": "They weigh more than the others in training. Keep one of each.",
    "outliers": "They weigh more than the others in training. Keep one of each.",
    "test": "The set is smaller than it seems, and its intervals are too narrow. Keep one of each.",
    "ood": "The set is smaller than it seems, and its intervals are too narrow. Keep one of each.",
}


def duplicates(sets: Mapping[str, tuple[str, Images]]) -> Iterator[Finding]:
    """Pictures that are in two sets, or twice in one, and equal training pictures with different labels; controls are left out."""
    role = {name: "ood" if group in ("near", "far") else group for name, (group, _) in sets.items() if group != "control"}
    names = sorted(role, key=lambda name: GROUPS.index(sets[name][0]))
    looks = {name: look(sets[name][1]) for name in names}
    clean = 0
    for i, a in enumerate(names):
        for b in names[i:]:
            if a != b and role[a] == role[b]:
                continue
            row_N, apart_N = partners(looks[a], looks[b])
            rows = (row_N >= 0).nonzero()[:, 0]
            if not len(rows):
                clean += 1
                continue
            n, count, equal = len(row_N), len(rows), int((apart_N[rows] == 0).sum())
            share = count / n
            where = "an earlier one of the set" if a == b else f"one of {a}"
            bits = f"{'all' if equal == count else equal or 'none'} to the last bit"
            severity = ("warning" if share >= LEAK else "fine") if a == b else "problem" if share >= LEAK else "warning"
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


def _pair(sets: Mapping[str, tuple[str, Images]], names: tuple[str, str], rows: tuple[int, int], rms: float) -> Json:
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
        _pair(sets, (name, name), rows, 0.0) | {"labels": [images.classes[images.labels[row]] for row in rows]}
        for rows in ((int(order[t]), int(order[t + 1])) for t in turns[:EXAMPLES])
    ]
    yield Finding(
        kind="labels", sets=(name,), count=count, share=share, examples=tuple(examples),
        severity="fine" if not count else "problem" if share >= LEAK else "warning",
        message=f"{count:,} of {len(images):,} pictures of {name} ({percent(share)}) have an equal one with another label. "
        + ("Nobody can name them rightly, and a detector that calls them unknown has a point. Correct the labels or drop them."
           if count else "So far as equal pictures tell, the labels agree."),
    )  # fmt: skip


# Traces that say nothing about content ---------------------------------------------------------------------------------------

FINEST, FINE = 0.4, 0.25  # cycles per pixel above which detail is called so; 0.5 is the finest there is
LEAST = 20  # images in a set of which statistics say something
BASE_SUM = 3688  # of the luminance quantisation table at quality 50 (ITU T.81, table K.1)
Facts = dict[str, np.ndarray]


def pixel_statistics(x_B3HW: Tensor) -> Facts:
    """What compressing, resizing and colouring change in pictures uint8 (B, 3, H, W), whatever they show: name -> float (B,).

    "finest detail" and "fine detail": logarithm of the share of the power (without the mean, under a Hann window) above FINEST and
    FINE; "blockiness": logarithm of how much larger the steps at multiples of 8 pixels are than the others; "colour": mean
    distance between the largest and the smallest channel, in [0, 1].
    """
    x = x_B3HW.float() / 255
    grey, size = x.mean(1), x.shape[-1]
    window = torch.hann_window(size, periodic=False)
    window = window[:, None] * window
    mean = (grey * window).sum((1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2((grey - mean) * window).abs().square()
    radius = torch.fft.fftfreq(size).square()
    radius = (radius[:, None] + radius).sqrt()
    total = power.sum((1, 2)) + 1e-6
    found = {
        name: (power[:, radius > r].sum(1) / total + 1e-7).log10() for name, r in (("finest detail", FINEST), ("fine detail", FINE))
    }
    border = torch.arange(1, size) % 8 == 0
    across, down = grey.diff(dim=2).abs().mean(1), grey.diff(dim=1).abs().mean(2)
    steps = across + down
    at, off = steps[:, border].mean(1) if border.any() else steps.mean(1), steps[:, ~border].mean(1)
    found["blockiness"] = ((at + 1e-3) / (off + 1e-3)).log()
    found["colour"] = (x.amax(1) - x.amin(1)).mean((1, 2))
    return {name: values.numpy() for name, values in found.items()}


def file_facts(files: Sequence[str]) -> Facts | None:
    """What N files on disk are, from their headers: name -> text or float (N,). None when one of them cannot be opened.

    The "JPEG quality" is 100 for other formats.
    """
    rows = []
    for file in files:
        try:
            with warnings.catch_warnings(), Image.open(file) as image:
                warnings.simplefilter("ignore")
                size = os.path.getsize(file) / (image.width * image.height)
                quality = jpeg_quality(getattr(image, "quantization", None))
                rows.append((image.format or "", image.mode, image.width, image.height, quality, size))
        except (OSError, ValueError):
            return None
    names = ("format", "mode", "width", "height", "JPEG quality", "bytes per pixel")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def jpeg_quality(tables: Mapping[int, Sequence[int]] | None) -> float:
    """The quality (1 to 100) on IJG's scale by the sum of the luminance table, rough below 20; 100 without tables."""
    if not tables or 0 not in tables:
        return 100.0
    scale = 100 * sum(tables[0]) / BASE_SUM
    return float(np.clip((200 - scale) / 2 if scale <= 100 else 5000 / scale, 1, 100))


def _columns(test: Facts, other: Facts) -> dict[str, np.ndarray]:
    """Every fact of both sets, one after the other, as numbers (N + M, k): texts become a column for each text."""
    both = {name: np.concatenate([test[name], other[name]]) for name in test}
    return {
        name: (x[:, None] == np.unique(x)).astype(float) if x.dtype.kind == "U" else x.astype(float)[:, None]
        for name, x in both.items()
    }


def told_apart(test: Facts, other: Facts, seed: int) -> tuple[dict[str, float], tuple[float, float]]:
    """AUROCs in [0.5, 1] by which statistics tell two sets apart, one by one and "together", and the 95 % interval of the latter.

    Together: a logistic regression on all of them and their squares, each image scored by one that was fitted without it (five
    folds).
    """
    columns = _columns(test, other)
    is_other = np.arange(sum(len(next(iter(facts.values()))) for facts in (test, other))) >= len(next(iter(test.values())))

    def area(score: np.ndarray) -> float:
        return auroc(*(torch.from_numpy(score[part].copy()) for part in (~is_other, is_other)))

    alone = {name: max(max(a, 1 - a) for a in map(area, x.T)) for name, x in columns.items()}
    z = StandardScaler().fit_transform(np.hstack([*columns.values()]))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    score = cross_val_predict(model, np.hstack([z, z**2]), is_other, cv=folds, method="decision_function")
    parts = [torch.from_numpy(score[part]) for part in (~is_other, is_other)]
    low, high = interval(bootstrap(*parts, seed=seed, resamples=200)["auroc"])
    return {"together": max(area(score), 0.5), **alone}, (low, high)


ONE_PIPELINE = "Put all sets through one pipeline: the same format and quality, one antialiased resize, grey or in colour alike."
ADVICE = {
    "near": ONE_PIPELINE,
    "far": f"{ONE_PIPELINE} If it is their nature, the set is easy, and its numbers say little about what pictures show.",
    "outliers": "Training can tell outliers by these alone. Reconstructed ID images (train.reconstructed_share), grey ones "
    "(train.grey) and the files' format (decode.format) lessen it; the control shows whether it matters.",
    "control": "These are the decoder's traces; whether a classifier keys on them, its AUROC on this set tells.",
}


def separated(sets: Mapping[str, tuple[str, Images]], seed: int) -> Iterator[Finding]:
    """How well files and pixels alone tell each set from the test set, whatever the pictures show; SAMPLE of each are read."""

    def some(name: str) -> Images:
        images = sets[name][1]
        return images.subset(torch.randperm(len(images), generator=generator(seed, "audit", name))[:SAMPLE].sort().values)

    def pixels(images: Images) -> Facts:
        parts = [pixel_statistics(x) for x, _ in images.batches(_batch(images))]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    known = next(name for name, (group, _) in sets.items() if group == "test")
    others = [name for name, (group, images) in sets.items() if group in ADVICE and len(images) >= LEAST]
    if not others or len(sets[known][1]) < LEAST:
        return
    sample = some(known)
    known_facts = {"files": file_facts(sample.files), "pixels": pixels(sample)}
    for name in others:
        group, sample = sets[name][0], some(name)
        for kind, facts in (("files", known_facts["files"] and file_facts(sample.files)), ("pixels", pixels(sample))):
            if not facts:
                continue
            test = known_facts[kind]
            assert test is not None
            found, (low, high) = told_apart(test, facts, seed)
            severity = "warning" if low >= (LEANS if kind == "files" else TRACES) else "fine"
            if kind == "files" and low >= SEPARATES and group in ("near", "far"):
                severity = "problem"
            best = sorted((key for key in found if key != "together"), key=found.__getitem__, reverse=True)
            single = ", ".join(f"{key} {percent(found[key])}" for key in best[:3])
            what = "file's format, size and compression" if kind == "files" else "pixels' fineness, blocks and colour"
            yield Finding(
                kind=kind, sets=(known, name), count=len(sample), share=found["together"], severity=severity,
                message=f"The {what} alone tell {name} from {known} at AUROC {percent(found['together'])} "
                f"({percent(low)} to {percent(high)}); one by one: {single}." + ("" if severity == "fine" else f" {ADVICE[group]}"),
                examples=tuple({"statistic": key, "auroc": round(found[key], 4)} for key in ("together", *best)),
            )  # fmt: skip


# Known classes by name -------------------------------------------------------------------------------------------------------

WORD = re.compile(r"n\d{8}|[^\W\d_]+")  # a WordNet id or letters
STOP = frozenset(
    "a an and by class classes cropped data dataset far for from full id image images img imgs in jpeg jpg large near new of on "
    "ood original other out photo photos pic pics picture pictures png raw sample samples set sets small test the to train "
    "training unknown val valid validation with".split()
)


def named(sets: Mapping[str, tuple[str, Images]], classes: Sequence[str], words: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """OOD sets whose own name, folders or files are called as a known class is: whole words in any case, singular or plural."""
    class_of = {key: name for name in classes for called in (name, *words.get(name, ())) for key in _keys(called)}
    clean = []
    for set_name, (group, images) in sets.items():
        if group not in ("near", "far"):
            continue
        hits: dict[str, Json] = {}
        count = 0
        for parts, file in zip(_parts(set_name, images.files), images.files, strict=True):
            found = {name for part in parts for name in _classes_in(part, class_of)}
            count += bool(found)
            for name in found:
                hits.setdefault(name, {"class": name, "file": file, "count": 0})["count"] += 1
        if not hits:
            clean.append(set_name)
            continue
        examples = sorted(hits.values(), key=lambda hit: -hit["count"])
        yield Finding(
            kind="names", sets=(set_name,), count=count, share=count / len(images), severity="warning",
            message=f"{count:,} of {len(images):,} files of {set_name} are called as known classes are: "
            f"{listed(hit['class'] for hit in examples)}. Look whether they show them; if so, they are no unknown things.",
            examples=tuple(examples[:EXAMPLES]),
        )  # fmt: skip
    if clean:
        yield Finding(
            kind="names", sets=tuple(clean), count=0, share=0.0, severity="fine",
            message=f"No known class is named by the folders and files of {listed(clean)}.",
        )  # fmt: skip


def _parts(set_name: str, files: Sequence[str]) -> Iterator[list[str]]:
    """The set's name, and of every file the folders that not all files lie in, and its own name."""
    paths = [Path(file) for file in files]
    shared = len(Path(os.path.commonpath([path.parent for path in paths])).parts)
    for path in paths:
        yield [set_name, *path.parts[shared:-1], path.stem]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]


def _forms(word: str) -> set[str]:
    """The word as it is, and what it may be the plural of."""
    found = {word}
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        found |= (
            {word[:-1]} | ({word[:-2]} if word.endswith("es") else set()) | ({f"{word[:-3]}y"} if word.endswith("ies") else set())
        )
    return found


def _keys(called: str) -> set[str]:
    """What a class is found by: each of its names (commas, slashes part them) as one word; no single letters, no numbers."""
    found: set[str] = set()
    for words in map(_words, re.split(r"[,;/()]", called)):
        if len("".join(words)) > 1:
            found |= {"".join([*words[:-1], form]) for form in _forms(words[-1])}
    return found


def _classes_in(part: str, class_of: Mapping[str, str]) -> Iterator[str]:
    """The classes a folder's or file's name names, longest first: "polo-shirts" names "polo shirt", not "shirt"."""
    words, start = _words(part), 0
    if STOP.issuperset(words):
        return
    while start < len(words):
        for stop in range(min(len(words), start + 5), start, -1):
            forms = {"".join([*words[start : stop - 1], form]) for form in _forms(words[stop - 1])}
            if hit := next((class_of[form] for form in sorted(forms) if form in class_of), None):
                yield hit
                start = stop - 1
                break
        start += 1


# The reconstructed-ID control ------------------------------------------------------------------------------------------------


def controlled(rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether the classifiers score ID images that went through the decoder's autoencoder as the ID images they are.

    Of every classifier the first detector's AUROC is judged, and its interval; over seeds the means of both.
    """
    for classifier in dict.fromkeys(row.classifier for row in rows):
        mine = [row for row in rows if row.classifier == classifier]
        first = [row for row in mine if row.detector == mine[0].detector]
        mean = fmean(row.auroc for row in first)
        low, high = (fmean(row.intervals.get("auroc", (row.auroc,) * 2)[end] for row in first) for end in (0, 1))
        off = 0.0 if low <= 0.5 <= high else abs(mean - 0.5)
        severity = SEVERITIES[2 - (off >= CONTROL_WARNS) - (off >= CONTROL_FAILS)]
        sign = "the unknown" if mean > 0.5 else "the known"
        meaning = (
            "50\u00a0% lies within the interval, as it should." if low <= 0.5 <= high
            else "Near 50\u00a0%, as it should be." if severity == "fine"
            else f"It takes the decoder's traces for a sign of {sign}, and outliers carry them. Raise "
            "train.reconstructed_share, or use a decoder with a better autoencoder."
        )  # fmt: skip
        yield Finding(
            kind="control", sets=(classifier,), count=first[0].n_ood, share=mean, severity=severity,
            message=f"{classifier} tells reconstructed ID images from the untouched ones at AUROC {percent(mean)} "
            f"({percent(low)} to {percent(high)}). {meaning}",
        )  # fmt: skip
