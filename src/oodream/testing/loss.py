"""A public check for training losses: the rules that any of them keeps, whatever it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.faults import require
from ..core.registry import make
from ..core.seeding import generator, seeded
from ..core.types import Head, Loss, Output, Sizes, Step, Terms
from ..training.terms import check_is_loss, check_terms
from ._rules import rules_of

__all__ = ["check_loss", "random_step"]

SIZES = (
    Sizes(features=6, classes=3, text=5, teacher=7, names=4, latent=(4, 8, 8)),
    Sizes(features=9, classes=4, text=4, teacher=5, names=2, latent=(3, 4, 6)),
)
OUTLIERS: dict[str, Any] = dict.fromkeys(("ood", "vector_OD", "near_O", "name_O", "latent_OFHW"))
Factory = Callable[[], Loss]


def check_loss(loss: str | Callable[..., Loss], **options: Any) -> None:
    """Raises AssertionError with the rule that a loss breaks.

    `loss` is a registered name, `package.module:Class` or the class itself, `options` are its own. The rules:
    the total is a finite scalar and the parts have names; all weights of the loss are made in `build`, at the
    latest; gradients reach the network and all of these weights; it works at any batch size and for the sizes
    it is built for; it refuses a step that lacks what it says it needs, and makes do without anything else;
    the order of a batch's rows does not matter, as long as known image, outlier and teacher of a row stay
    together; it leaves the step as it is; its state can be read back.
    """
    factory: Factory = (
        partial(make, "losses", loss, **options) if isinstance(loss, str) else partial(loss, **options)
    )
    with rules_of(loss):
        check_is_loss(factory())
        for sizes in SIZES:
            for known, outliers in ((6, 6), (1, 1), (5, 2), (2, 5)):
                _check_terms(_built(factory, sizes), random_step(sizes, known, outliers))
            _check_made(_built(factory, sizes), random_step(sizes, 6, 6))
            _check_gradients(_built(factory, sizes), random_step(sizes, 6, 6))
            _check_needs(factory, sizes)
            _check_early_refusal(factory, sizes)
            _check_rows(factory, sizes)
            _check_state(factory, sizes)


def random_step(sizes: Sizes, known: int, outliers: int, seed: int = 0) -> Step:
    """A step with everything a training can have, for so many known images and outliers.

    It is a function of the seed. Its outputs and its head require gradients. Head and outputs are unrelated.
    """
    g = generator(seed, "step", known, outliers)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    def output(n: int) -> Output:
        return Output(
            logits_BC=normal(n, sizes.classes).requires_grad_(),
            z_BF=normal(n, sizes.features).requires_grad_(),
        )

    assert sizes.latent is not None
    return Step(
        id=output(known),
        y_B=torch.arange(known) % sizes.classes,
        weight_B=torch.ones(known),
        ood=output(outliers),
        vector_OD=torch.nn.functional.normalize(normal(outliers, sizes.text), dim=1),
        near_O=torch.arange(outliers) % sizes.classes,
        name_O=torch.arange(outliers) % max(1, sizes.names),
        latent_OFHW=normal(outliers, *sizes.latent),
        tokens_CD=torch.nn.functional.normalize(normal(sizes.classes, sizes.text), dim=1),
        teacher=Output(logits_BC=normal(known, sizes.classes), z_BF=normal(known, sizes.teacher)),
        head=Head(
            weight_CF=normal(sizes.classes, sizes.features).requires_grad_(),
            bias_C=normal(sizes.classes).requires_grad_(),
        ),
    )


def _built(factory: Factory, sizes: Sizes) -> Loss:
    with seeded(0, "check_loss"):
        loss = factory()
        loss.build(sizes)
    return loss


def _terms(loss: Loss, step: Step, seed: int = 0) -> Terms:
    with seeded(seed, "check_loss", "step"):
        return loss(step)


def _refusal(call: Callable[[], object]) -> str | None:
    """The message of the ValueError that a call raises; None where it raises none."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


def _check_terms(loss: Loss, step: Step, what: str = "") -> None:
    n = f"{what}{len(step.y_B)} known images and {len(step.ood) if step.ood else 0} outliers"
    try:
        terms = _terms(loss, step)
    except Exception as error:
        raise AssertionError(f"The loss fails for {n}: {type(error).__name__}: {error}") from error
    check_terms(terms)
    for name, value in (("", terms.total), *terms.parts.items()):
        called = f"The part {name!r}" if name else "The total"
        require(bool(torch.isfinite(value)), f"{called} is {value.item()} for {n}; it must be finite.")
    for name in terms.parts:
        require("@" not in name, f"The part {name!r} has an @ in its name, which marks losses used twice.")


def _check_made(loss: Loss, step: Step) -> None:
    """Everything that the loss learns is there before the first step."""
    before = loss.state_dict().keys()
    _terms(loss, step)
    late = sorted(loss.state_dict().keys() - before)
    require(
        not late,
        f"The loss makes {', '.join(late)} in forward, where it is never trained, and not read back. Make it "
        "in build(sizes), which is called before training and knows the sizes.",
    )


def _check_gradients(loss: Loss, step: Step) -> None:
    _terms(loss, step).total.backward()
    assert step.head is not None
    network = (step.id.logits_BC, step.id.z_BF, step.head.weight_CF)
    require(
        any(bool((x.grad != 0).any()) for x in network if x.grad is not None),
        "No gradient reaches the network's logits, features or head.",
    )
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                raise AssertionError(f"No gradient reaches the loss's own {name}.")
            require(
                bool(torch.isfinite(parameter.grad).all()),
                f"The gradient of the loss's own {name} is not finite.",
            )


def _check_needs(factory: Factory, sizes: Sizes) -> None:
    """What a loss says it needs is missed and matters; anything else is not missed."""
    full, other = (random_step(sizes, 6, 6, seed) for seed in (0, 1))
    for need, flag, fields_of_need, smaller in (
        ("outliers", "outliers", OUTLIERS, replace(sizes, text=0, names=0, latent=None)),
        ("teacher", "teacher", {"teacher": None}, replace(sizes, teacher=0)),
        ("head", "needs_head", {"head": None}, sizes),
    ):
        lacking = replace(full, **fields_of_need)
        loss = _built(factory, sizes)
        if not getattr(loss, flag):
            _check_terms(
                _built(factory, smaller), lacking, f"a step without {need}, which it does not need: "
            )
            continue
        message = _refusal(partial(_terms, loss, lacking))
        if message is None:
            raise AssertionError(f"The loss says that it needs {need}, and takes a step without.")
        require(
            need.rstrip("s") in message, f"The refusal of a step without {need} does not say so: {message}"
        )
        changed = replace(full, **{name: getattr(other, name) for name in fields_of_need})
        totals = [_terms(_built(factory, sizes), step).total for step in (full, changed)]
        require(
            not torch.equal(*totals),
            f"The loss says that it needs {need}, and its total is the same with others.",
        )


def _check_early_refusal(factory: Factory, sizes: Sizes) -> None:
    """Outliers may have no latents (images) or no vectors (known images): `build` refuses, or all is well."""
    full = random_step(sizes, 6, 6)
    for what, lacking, smaller in (
        ("latents", replace(full, latent_OFHW=None), replace(sizes, latent=None)),
        ("vectors", replace(full, vector_OD=None), replace(sizes, text=0)),
    ):
        message = _refusal(partial(_built, factory, smaller))
        if message is None:
            hint = f"outliers without {what}, which build must refuse (ValueError) before training begins: "
            _check_terms(_built(factory, smaller), lacking, hint)
        else:
            require(what in message, f"build refuses outliers without {what}, and does not say so: {message}")


def _check_rows(factory: Factory, sizes: Sizes) -> None:
    """The order of rows does not matter, and the step stays as it is."""
    order = torch.tensor([4, 0, 5, 2, 1, 3])

    def moved(name: str, value: Any) -> Any:
        if isinstance(value, Output):
            return Output(logits_BC=value.logits_BC[order], z_BF=value.z_BF[order])
        return value if name in ("tokens_CD", "head", "progress") else value[order]

    def tensors(step: Step) -> dict[str, Tensor]:
        parts = {name: value for name, value in vars(step).items() if isinstance(value, Tensor)}
        for name in ("id", "ood", "teacher", "head"):
            tensors_of_part = vars(getattr(step, name)).items()
            parts |= {f"{name}.{key}": value for key, value in tensors_of_part if isinstance(value, Tensor)}
        return parts

    loss = _built(factory, sizes)
    step, untouched = random_step(sizes, 6, 6), tensors(random_step(sizes, 6, 6))
    total = _terms(loss, step).total
    for name, tensor in tensors(step).items():
        require(torch.equal(tensor, untouched[name]), f"The loss changes the step's {name} in place.")
    again = _terms(
        _built(factory, sizes), Step(**{name: moved(name, value) for name, value in vars(step).items()})
    ).total
    if torch.allclose(total, again, rtol=1e-4, atol=1e-6):
        return
    twice = [_terms(_built(factory, sizes), step, seed).total for seed in (0, 1)]
    for other in twice:
        require(
            torch.allclose(total, other, rtol=1e-4, atol=1e-6),
            f"The loss is random: the total is {total.item():g}, and {other.item():g} for the same rows at "
            "another time. Draw no random numbers for single rows: their order must not matter.",
        )
    raise AssertionError(
        f"The total is {total.item():g}, and {again.item():g} for the same rows in another order."
    )


def _check_state(factory: Factory, sizes: Sizes) -> None:
    """A classifier's folder holds the state of its loss, and reads it back without `build`."""
    state, fresh = _built(factory, sizes).state_dict(), factory()
    if fresh.state_dict():
        try:
            fresh.load_state_dict(state)
        except RuntimeError as error:
            raise AssertionError(
                "The state of a loss that was built cannot be loaded by one that was not, as when a "
                "classifier is read. Let load_state_dict make what is missing, or make all weights in build."
            ) from error
