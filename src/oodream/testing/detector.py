"""The rules that every detector keeps, as a check for authors of new ones, on outputs of the made-up network
of `toy`.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core import registry
from ..core.faults import require
from ..core.types import Detector, Output
from ..detection.detectors import BaseDetector, NotFitted, learned_fields, probes_of, restore, state
from ..detection.fit import Training, training_outputs, uses_outliers
from ..models.inference import Extractor
from ._rules import run_rules, untouched
from .toy import CLASSES, WIDTH, Toy, head, known, output, pictures, unknown

__all__ = ["check_detector"]

MISSING = r"\b(feature|last layer|class|sample|image|probe)"  # what a refusal names, or the detector
APART = 0.9  # AUROC between known and far-away outputs that any detector reaches

Factory = Callable[[], Any]


def check_detector(detector: str | Callable[..., Detector], **options: Any) -> None:
    """Checks that a detector keeps the rules; AssertionError says which one it breaks.

    `detector` is a registered name, a plug-in as `package.module:Class`, or the class itself; `options` are
    those it is made with. The rules, in the order in which they are checked:

    - It is a dataclass. Its options are JSON values, and what `fit` fills are fields with `init=False`.
    - `fit` returns the detector. `score` returns float64 numbers (N,), finite, one for each output.
    - `fit` and `score` leave what they are given as it is, and PyTorch's global random numbers, too.
    - A score depends on its own output alone, neither on the others nor on their order, and is the same at
      the next run.
    - Outputs far away from known ones score higher.
    - A detector that learns raises NotFitted before `fit`. What it has learned can be stored and restored.
    - One that learns from outliers (`uses_outliers`) raises ValueError that says so where `fit` gets none.
    - NaN and infinity raise ValueError. Few images, constant features, and a network that shows no features
      or no last layer give finite scores, or ValueError that names what is missing.
    - Every value in `GRID` can be used.
    - A network serves it: `probes` are computed in a pass, whatever the batch.
    """

    def make() -> Any:
        if isinstance(detector, str):
            return registry.make("detectors", detector, **options)
        return detector(**options)

    run_rules(detector, [partial(rule, make) for rule in RULES])


def _dataclass(make: Factory) -> None:
    """It is a dataclass with options that are JSON values."""
    detector = make()
    require(is_dataclass(detector), "It must be a dataclass: its fields are its options and what it learns.")
    for f in fields(detector):
        value = getattr(detector, f.name)
        require(
            not f.init or isinstance(value, (int, float, str, bool)),
            f"The option {f.name} must be a number, a text or a boolean, not {value!r}; a field that `fit` "
            "fills is declared by `learned()`, or with init=False.",
        )
    options = {f.name: getattr(detector, f.name) for f in fields(detector) if f.init}
    again = type(detector)(**json.loads(json.dumps(options)))
    require(all(getattr(again, f) == value for f, value in options.items()), "Options must survive JSON.")


def _scores(make: Factory) -> None:
    """`fit` returns the detector and `score` float64 numbers."""
    detector = make()
    require(_fit(detector) is detector, "`fit` must return the detector itself.")
    for n in (1, 50):
        score_N = detector.score(known(n, 1, [detector])[0])
        require(isinstance(score_N, Tensor), f"`score` must return a tensor, not {type(score_N).__name__}.")
        require(
            score_N.shape == (n,),
            f"`score` of {n} outputs must have shape ({n},), not {tuple(score_N.shape)}.",
        )
        require(
            score_N.dtype == torch.float64,
            f"Scores must be float64, not {score_N.dtype}.{_of_what_it_reads(detector)}",
        )
        require(bool(score_N.isfinite().all()), "Scores of ordinary outputs must be finite.")
        require(not score_N.requires_grad, "Scores must not require gradients.")


def _of_what_it_reads(detector: Any) -> str:
    """Why a detector of ours may have other numbers than float64."""
    if not isinstance(detector, BaseDetector):
        return ""
    return (
        f" What `reads` names comes as float64, and the rest of an output as it is; here reads = "
        f'{detector.reads}. One that uses z_BF has reads: ClassVar = ("features",).'
    )


def _direction(make: Factory) -> None:
    """Outputs far away from known ones score higher."""
    detector = _fit(make())
    known_N, unknown_M = (
        detector.score(known(200, 1, [detector])[0]),
        detector.score(unknown(100, 2, [detector])),
    )
    auroc = float((unknown_M[:, None] > known_N).double().mean())
    require(
        auroc > APART,
        "Scores must be higher for OOD, here for features that are small but for one, large, in a dimension "
        f"that no class uses: {auroc:.1%} of pairs are in this order, and {APART:.0%} must be."
        + (" The sign of the score is reversed." if auroc < 1 - APART else ""),
    )


def _independence(make: Factory) -> None:
    """A score depends on its own output alone, and is the same at the next run."""
    detector = _fit(make())
    test, order = known(30, 1, [detector])[0], torch.randperm(30, generator=torch.Generator().manual_seed(0))
    whole = detector.score(test)
    parts = torch.cat([detector.score(_rows(test, slice(a, b))) for a, b in ((0, 1), (1, 12), (12, 30))])
    require(_close(parts, whole), "A score must not depend on the batch that its output came in.")
    require(_close(detector.score(_rows(test, order)), whole[order]), "A score must not depend on the order.")
    require(torch.equal(detector.score(test), whole), "`score` must give the same scores when asked again.")
    again = _fit(make()).score(test)
    require(torch.equal(again, whole), "The same images must give the same detector: seed what is random.")


def _inputs(make: Factory) -> None:
    """`fit` and `score` leave their inputs as they are, and the global random numbers."""
    detector = make()
    fit = _training(detector, known(400, 0, [detector]))
    with untouched(*_tensors(fit)):
        fit.fit(detector)
    for test in (known(30, 1, [detector])[0], _doubled(known(30, 1, [detector])[0])):
        with untouched(*_tensors(test)):
            detector.score(test)


def _state(make: Factory) -> None:
    """What it has learned can be stored and restored."""
    detector = make()
    if learned_fields(detector):
        try:
            detector.score(known(30, 1, [detector])[0])
        except NotFitted:
            pass
        else:
            raise AssertionError("A detector that learns must raise NotFitted when it scores before `fit`.")
    learned = state(_fit(detector))
    test = known(30, 1, [detector])[0]
    for field, value in learned.items():
        require(
            isinstance(value, Tensor), f"`fit` must fill {field} with a tensor, not {type(value).__name__}."
        )
    again = restore(make(), {field: value.clone() for field, value in learned.items()})
    require(
        torch.equal(again.score(test), detector.score(test)),
        "All that `score` needs must be in the learned fields: restored from them, the scores differ.",
    )
    copied = copy.deepcopy(detector)
    require(torch.equal(copied.score(test), detector.score(test)), "A deep copy must score alike.")


def _outliers(make: Factory) -> None:
    """A detector that learns from outliers says so when it gets none."""
    detector = make()
    if not uses_outliers(detector):
        return
    try:
        detector.fit(*known(400, 0, [detector]), head())
    except ValueError as error:
        require("outlier" in str(error), f"A ValueError must say that outliers are missing, not: {error}")
    else:
        raise AssertionError("A detector that uses outliers must raise ValueError where `fit` gets none.")


def _not_finite(make: Factory) -> None:
    """NaN and infinity are refused."""
    detector = _fit(make())
    for bad in (torch.nan, torch.inf):
        broken = known(5, 1, [detector])[0]
        for tensor in _tensors(broken):
            tensor[2, 1] = bad
        _require_refusal(partial(detector.score, broken), f"`score` of outputs that hold {bad}")
    if learned_fields(detector):
        broken, y_N = known(400, 0, [detector])
        for tensor in _tensors(broken):
            tensor[0, 0] = torch.nan
        fit = _training(detector, (broken, y_N))
        _require_refusal(lambda: fit.fit(make()), "`fit` on outputs that hold nan")


def _hard_cases(make: Factory) -> None:
    """Few images, constant features, no features, no last layer."""
    detector = make()
    (few, y_few), (whole, y_N) = known(12, 0, [detector]), known(100, 0, [detector])
    flat, bare = output(torch.ones(12, WIDTH), [detector]), replace(whole, z_BF=torch.empty(100, 0))
    ordinary = _training(detector, (few, y_few))
    cases: Mapping[str, Training] = {
        "fewer images than features": ordinary,
        "constant features": replace(ordinary, known=flat, outliers=flat),
        "one image": replace(ordinary, known=_rows(few, slice(0, 1)), y_N=y_few[:1]),
        "a network that shows no last layer": replace(ordinary, known=whole, y_N=y_N, head=None),
        "a network that shows logits alone": Training(bare, y_N, None, bare),
    }
    for case, training in cases.items():
        try:
            fitted = make().fit(*training.given(detector))
            probes = known(len(training.known), 0, [fitted])[0].probes
            score_N = fitted.score(replace(training.known, probes={**probes, **training.known.probes}))
        except ValueError as error:
            named = type(detector).__name__ in str(error) or re.search(MISSING, str(error))
            require(bool(named), f"With {case} a ValueError must say what is missing, not: {error}")
        except Exception as error:
            raised = f"{type(error).__name__} ({error})"
            raise AssertionError(f"With {case} it must score or raise ValueError, not {raised}.") from error
        else:
            require(bool(score_N.isfinite().all()), f"With {case} it gives scores that are not finite.")


def _grid(make: Factory) -> None:
    """Every value in GRID can be used."""
    kind = type(make())
    grid: Mapping[str, Sequence[Any]] = getattr(kind, "GRID", {})
    options = {f.name for f in fields(kind) if f.init}
    require(grid.keys() <= options, f"GRID names no options: {', '.join(sorted(grid.keys() - options))}.")
    usable: dict[str, set[Any]] = {option: set() for option in grid}
    for combination in itertools.product(*grid.values()):
        with suppress(ValueError):
            detector = kind(**dict(zip(grid, combination, strict=True)))
            for option in grid:
                usable[option].add(getattr(detector, option))
    for option, values in grid.items():
        refused = [value for value in values if value not in usable[option]]
        require(not refused, f"GRID holds values of {option} with which it cannot be made: {refused}.")


def _network(make: Factory) -> None:
    """A network serves it, whatever the batch."""
    detector, network, (fit, test) = make(), Toy(), (pictures(200, 0), pictures(20, 1))
    extractor = Extractor(network)
    last = replace(extractor.head, energy_C=torch.ones(CLASSES)) if extractor.head else None
    replace(training_outputs(extractor, [detector], fit, pictures(50, 2).as_ood()), head=last).fit(detector)
    probes = probes_of([detector])
    whole, parts = (detector.score(extractor(test, probes, batch=batch)) for batch in (20, 7))
    require(bool(whole.isfinite().all()), "Scores of a network's outputs must be finite.")
    require(
        torch.allclose(whole, parts, rtol=1e-4, atol=1e-5),
        "A score must not depend on how many images the network sees at once.",
    )


RULES: tuple[Callable[[Factory], None], ...] = (
    _dataclass,
    _scores,
    _inputs,
    _independence,
    _direction,
    _state,
    _outliers,
    _not_finite,
    _hard_cases,
    _grid,
    _network,
)


def _fit(detector: Any) -> Any:
    return _training(detector, known(400, 0, [detector])).fit(detector)


def _training(detector: Any, fit: tuple[Output, Tensor]) -> Training:
    """What the detector is fitted to: these outputs, and far-away ones as outliers."""
    return Training(*fit, head(), unknown(100, 3, [detector]))


def _rows(whole: Output, rows: Any) -> Output:
    probes = {key: probe[rows] for key, probe in whole.probes.items()}
    return Output(logits_BC=whole.logits_BC[rows], z_BF=whole.z_BF[rows], probes=probes)


def _doubled(whole: Output) -> Output:
    """The same numbers as float64, which a detector may be given as they are, and not as a copy."""
    probes = {key: probe.double() for key, probe in whole.probes.items()}
    return Output(logits_BC=whole.logits_BC.double(), z_BF=whole.z_BF.double(), probes=probes)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in _tensors(value)]
    if isinstance(values, Mapping):
        return _tensors(list(values.values()))
    return _tensors(list(vars(values).values())) if is_dataclass(values) else []


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-6, atol=1e-12)


def _require_refusal(act: Callable[[], Any], what: str) -> None:
    try:
        act()
    except ValueError as error:
        require("NaN" in str(error), f"{what} must raise a ValueError that says so, not: {error}")
    else:
        raise AssertionError(f"{what} must raise ValueError.")
