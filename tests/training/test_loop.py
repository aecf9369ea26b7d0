"""The training loop: its objective, its optimiser, resume, and losses that stop being numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.config import Optimisation
from oodream.core.memory import MemoryShort
from oodream.core.registry import make
from oodream.core.seeding import derive
from oodream.core.tensors import load_state
from oodream.core.types import LatentAdapter, Loss, Output, Sizes, Terms
from oodream.models.inference import Extractor
from oodream.training import loop
from oodream.training.batches import epoch_batches
from oodream.training.loop import Objective, fit, one_cycle, teaching
from oodream.training.sources import Source
from tests.helpers.networks import images as bright_images
from tests.helpers.training import CPU, UNMOVED, images, known, latent_sources, network, outliers


class Linear(nn.Module):
    """Logits linear in the pixels."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.head = nn.Linear(3 * size**2, 3)
        with torch.no_grad():
            self.head.weight.copy_(0.05 * torch.randn(self.head.weight.shape, generator=g))
            self.head.bias.zero_()

    def forward(self, x):
        z = x.float().flatten(1) / 255
        return Output(logits_BC=self.head(z), z_BF=z)


class Interrupted(Loss):
    """A loss that stops, as a kill would, after some calls."""

    def __init__(self, calls: int, inner: str = "energy_logistic") -> None:
        super().__init__()
        self.inner, self.left = make("losses", inner), calls
        self.inner.build(Sizes(features=128, classes=3))

    def forward(self, step):
        if (left := self.left) == 0:
            raise KeyboardInterrupt
        self.left = left - 1
        return self.inner(step)


@pytest.mark.parametrize("name", ["energy_logistic", "vos"])
def test_resumed_training_equals_an_undisturbed_one(name, tmp_path):
    sources, config = [known(images(64)), outliers(images(20, 90))], Optimisation(batch=16, epochs=3)
    whole = network()
    log = fit(whole, Interrupted(-1, name), sources, config, 5, CPU, tmp_path / "a", "t")
    broken = network()
    with pytest.raises(KeyboardInterrupt):
        fit(broken, Interrupted(6, name), sources, config, 5, CPU, tmp_path / "b", "t")
    again = network()
    assert fit(again, Interrupted(-1, name), sources, config, 5, CPU, tmp_path / "b", "t") == log
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert len(log) == 3


def test_the_seed_decides(tmp_path):
    sources, config = [known(images(64))], Optimisation(batch=16, epochs=1)
    logits = []
    for i, seed in enumerate((1, 1, 2)):
        model = network()
        fit(model, make("losses", "cross_entropy"), sources, config, seed, CPU, tmp_path / str(i), "t")
        logits.append(Extractor(model)(images(64)).logits_BC)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_it_descends_by_nesterovs_momentum(tmp_path):
    """The steps of SGD with Nesterov momentum 0.9, weight decay and one cycle, written out in numpy."""
    config = Optimisation(
        batch=16, epochs=2, lr=0.3, weight_decay=0.01, crop_padding=0, flip=False, precision="fp32"
    )
    sources, model = [known(images(48))], Linear()
    weight, bias = (x.detach().double().numpy().copy() for x in model.head.parameters())
    log = fit(model, make("losses", "cross_entropy"), sources, config, 4, CPU, tmp_path / "s", "t")
    momentum = [np.zeros_like(weight), np.zeros_like(bias)]
    losses, steps = [], 6
    for i in range(steps):
        batch = list(epoch_batches(sources, config, derive(4, "t"), i // 3))[i % 3]
        x, y = batch.images_B3HW.flatten(1).double().numpy() / 255, np.eye(3)[batch.y_B]
        p = np.exp(x @ weight.T + bias)
        p /= p.sum(1, keepdims=True)
        losses.append(-np.log((p * y).sum(1)).mean())
        gradients = [(p - y).T @ x / 16 + 0.01 * weight, (p - y).mean(0) + 0.01 * bias]
        for k, gradient in enumerate(gradients):
            momentum[k] = 0.9 * momentum[k] + gradient if i else gradient
        rate = 0.3 * one_cycle((i + 1) / steps)
        weight = weight - rate * (gradients[0] + 0.9 * momentum[0])
        bias = bias - rate * (gradients[1] + 0.9 * momentum[1])
    np.testing.assert_allclose(model.head.weight.detach().numpy(), weight, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.head.bias.detach().numpy(), bias, rtol=1e-3, atol=1e-5)
    assert [epoch["loss"] for epoch in log] == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:])], rel=1e-4
    )


def test_a_loss_that_is_not_a_number_stops_with_its_epoch(tmp_path):
    class Broken(Loss):
        def forward(self, step):
            total = step.id.logits_BC.sum() * float("nan")
            return Terms(total=total, parts={"right": total.new_zeros(()), "wrong": total})

    sentence = r"t: the loss .*[:.]Broken \(its part wrong\) became nan in the first step, before any weight"
    with pytest.raises(FloatingPointError, match=sentence):
        fit(network(), Broken(), [known(images(16))], Optimisation(batch=8), 0, CPU, tmp_path / "s", "t")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_gives_out_says_what_to_lower(error, tmp_path, monkeypatch):
    """And the epochs that are finished are kept."""
    sources, config = [known(images(64))], Optimisation(batch=16, epochs=2)

    class Failing(Interrupted):
        def forward(self, step):
            if self.left == 0:
                raise error
            self.left -= 1
            return self.inner(step)

    with pytest.raises(MemoryShort, match=r"t: memory gave out\. Lower the batch \(16\)\. What is finished"):
        fit(network(), Failing(5, "cross_entropy"), sources, config, 5, CPU, tmp_path / "a", "t")
    assert len(load_state(tmp_path / "a", CPU)["log"]) == 1


def test_a_loss_is_named_as_in_the_options(tmp_path, monkeypatch):
    loss = make("losses", "logit_norm")
    monkeypatch.setattr(
        type(loss), "forward", lambda _, step: Terms(total=step.id.logits_BC.sum() * float("nan"))
    )
    with pytest.raises(FloatingPointError, match="t: the loss logit_norm became nan"):
        fit(network(), loss, [known(images(16))], Optimisation(batch=8), 0, CPU, tmp_path / "s", "t")


def test_a_loss_that_breaks_late_stops_with_its_epoch_and_leaves_the_state_before(tmp_path):
    class Breaking(Loss):
        steps = 0

        def forward(self, step):
            self.steps += 1
            return Terms(total=step.id.logits_BC.sum() * (0.0 if self.steps < 7 else float("inf")))

    state, config = tmp_path / "s", Optimisation(batch=8, epochs=5)
    with pytest.raises(FloatingPointError, match=r"loss .*[:.]Breaking became (nan|inf|-inf) in epoch 4\."):
        fit(network(), Breaking(), [known(images(16))], config, 0, CPU, state, "t")
    assert len(load_state(state, CPU)["log"]) == 3


def test_one_cycle():
    assert one_cycle(0.1) == pytest.approx(0.5)
    assert one_cycle(0.2) == pytest.approx(1.0)
    assert one_cycle(0.6) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(0.0)


def test_small_sets_are_passed_over_more_often(tmp_path):
    config = Optimisation(batch=16, epochs=2, min_steps=9)
    loss = make("losses", "cross_entropy")
    assert len(fit(network(), loss, [known(images(32))], config, 0, CPU, tmp_path / "s", "t")) == 5


@pytest.mark.parametrize(("batch", "ratio", "few"), [(2, 1.0, "2 known images"), (16, 0.1, "2 outliers")])
def test_a_batch_that_processes_cannot_share_is_refused(batch, ratio, few, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    config, loss = Optimisation(batch=batch), make("losses", "energy_logistic")
    sources = [known(images(32)), outliers(images(8, 90), ratio=ratio)]
    with pytest.raises(ValueError, match=f"A batch has {few}, too few for 3 processes"):
        fit(network(), loss, sources, config, 0, CPU, tmp_path / "s", "t")


# Adapters


class Constant(LatentAdapter):
    """Ones for every latent, and a loss of its own that is the square of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, model, images_B3HW, latents):
        output = model(images_B3HW)
        ones = [x.new_ones(len(latents.latent_LFHW), x.shape[1]) for x in (output.logits_BC, output.z_BF)]
        logits, z = (torch.cat(pair) for pair in zip((output.logits_BC, output.z_BF), ones, strict=True))
        return Output(logits_BC=logits, z_BF=z), self.weight.square()


def test_the_adapters_own_loss_counts_and_its_latents_are_classified(tmp_path):
    """Latents of equal logits have the cross-entropy log 3, and the adapter's own 9 comes on top."""
    sources, adapter, model = latent_sources(), Constant(), Linear(32)
    (batch, *_) = epoch_batches(sources, Optimisation(batch=8), 0, 0)
    objective = Objective(model, make("losses", "cross_entropy"), adapter=adapter)
    terms, _ = objective(batch)
    with torch.no_grad():
        of_images = F.cross_entropy(model(batch.images_B3HW).logits_BC, batch.y_B[:8]).item()
    assert terms.total.item() == pytest.approx((8 * of_images + 4 * np.log(3)) / 12 + 9, rel=1e-5)
    assert terms.parts["adapter"].item() == pytest.approx(9)
    terms.total.backward()
    assert adapter.weight.grad.item() == pytest.approx(6)
    config = Optimisation(batch=8, epochs=1, lr=0.05)
    log = fit(
        model, make("losses", "cross_entropy"), sources, config, 0, CPU, tmp_path / "s", "t", adapter=adapter
    )
    assert adapter.weight < 2.5, "the adapter learns along"
    assert log[0]["loss"] > log[0]["adapter"] > 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda output: (output, None), r"shapes \[\(8, 3\), .* not 16 rows"),
        (lambda output: output, "not Output"),
        (lambda output: ([].pop(), None), "IndexError"),
    ],
)
def test_an_adapter_that_gives_something_else_is_named(given, words, monkeypatch):
    sources, model = latent_sources(), Linear(32)
    (batch, *_) = epoch_batches(sources, Optimisation(batch=8), 0, 0)
    monkeypatch.setattr(Constant, "forward", lambda _, network, images, __: given(network(images)))
    objective = Objective(model, make("losses", "cross_entropy"), adapter=Constant())
    with pytest.raises(ValueError, match=f"^The latent adapter {__name__}:Constant: .*{words}"):
        objective(batch)


# Teachers


def test_teacher_outputs_are_computed_once_where_that_is_exact():
    teacher, sources, calls = network(), [known(images(24, size=32))], []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    ask = teaching(teacher, sources, UNMOVED, CPU)
    assert len(calls) == 1
    for batch in epoch_batches(sources, UNMOVED, 0, 0):
        answer = ask(batch)
        assert len(calls) == 1, "remembered"
        with torch.no_grad():
            expected = network().eval()(batch.images_B3HW)
        torch.testing.assert_close(answer.logits_BC, expected.logits_BC)
        torch.testing.assert_close(answer.z_BF, expected.z_BF)


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("reconstructed", {}),
        ("inlier", {}),
        ("", {"flip": True}),
        ("", {"crop_padding": 1}),
        ("", {"min_area": 0.5}),
    ],
)
def test_a_teacher_is_asked_anew_where_batches_differ(role, change):
    """Augmented images, and those of other sources, whose rows are not those of the training set."""
    teacher, sources, calls = network(), [known(images(24, size=32))], []
    sources += [Source(role=role, data=images(9, 80, size=32), ratio=0.5)] if role else []
    config = replace(UNMOVED, **change)
    teacher.register_forward_hook(lambda *_: calls.append(1))
    ask = teaching(teacher, sources, config, CPU)
    for i, batch in enumerate(epoch_batches(sources, config, 0, 0)):
        answer = ask(batch)
        assert len(calls) == i + 1
        with torch.no_grad():
            expected = network().eval()(batch.images_B3HW[: len(batch.y_B)])
        torch.testing.assert_close(answer.logits_BC, expected.logits_BC)


# Precision


class Watching(Loss):
    """Cross-entropy that remembers what it received."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def forward(self, step):
        self.seen |= {
            part.dtype for output in (step.id, step.ood) for part in (output.logits_BC, output.z_BF)
        }
        return Terms(total=F.cross_entropy(step.id.logits_BC, step.y_B))


def trained(precision, tmp_path):
    inside: set[torch.dtype] = set()
    model, loss = network(), Watching()
    model.stages.register_forward_hook(lambda module, inputs, out: inside.add(out.dtype))
    sources = [known(bright_images(24)), outliers(bright_images(8))]
    config = Optimisation(batch=8, epochs=3, lr=0.05, precision=precision)
    log = fit(model, loss, sources, config, 0, CPU, tmp_path / precision, "t")
    return model, log, inside, loss.seen


def test_mixed_precision_trains_and_losses_stay_float32(tmp_path):
    model, log, inside, seen = trained("bf16", tmp_path)
    assert inside == {torch.bfloat16}
    assert seen == {torch.float32}
    assert log[-1]["loss"] < log[0]["loss"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    out = Extractor(model)(bright_images(24))
    assert out.logits_BC.dtype == out.z_BF.dtype == torch.float32
    assert torch.isfinite(out.logits_BC).all()


def test_auto_is_float32_on_a_cpu_without_matrix_units(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "multiplies_bf16", lambda device: False)
    (a, log_a, inside, _), (b, log_b, _, _) = trained("auto", tmp_path), trained("fp32", tmp_path)
    assert inside == {torch.float32}
    assert log_a == log_b
    assert all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision must be one of auto, bf16, fp32, not 'fp16'"):
        trained("fp16", tmp_path)
