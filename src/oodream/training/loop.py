"""The one training loop: SGD with a one-cycle rate, over batches of ID images and of what stands beside them.

It never looks inside a loss. State is saved after every epoch, so a killed training continues and ends with
the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Optimisation
from ..core import parallel, registry
from ..core.ahead import ahead
from ..core.device import multiplies_bf16
from ..core.distributed import Shard, averaged, barrier, current_shard, gathered, is_main, mean
from ..core.faults import blamed
from ..core.memory import advice
from ..core.progress import progress
from ..core.seeding import derive, seeded
from ..core.tensors import load_state, save_state
from ..core.types import LatentAdapter, Loss, Output, Step, Terms
from ..models.inference import Extractor, linear_head
from .batch_norm import synchronised
from .batches import Batch, epoch_batches
from .latent_adapters import check_adapted
from .sources import Source, check_sources, known_images, source_of
from .terms import name_of, terms_of

__all__ = ["Objective", "autocast", "fit", "one_cycle", "sgd", "teaching"]

STEPS_READ_TOGETHER = 16
Teacher = Callable[[Batch], Output]


class Objective(nn.Module):
    """Network, losses and latent adapter as one module: a batch in, terms and accuracy (of known rows) out.

    `tokens_CD` are the classes' vectors, `progress` the share of the steps that are done. `perturbation`
    makes outliers of the known images in their place. The teacher is not part of the module: nothing of it is
    trained, saved or averaged.

    Of several processes each computes its part of the outputs and of the batch's statistics. All losses see
    the whole batch, in every process, so that none needs to know how many there are.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        cast: AbstractContextManager[object] | None = None,
        adapter: LatentAdapter | None = None,
        teacher: Teacher | None = None,
        tokens_CD: Tensor | None = None,
        perturbation: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.adapter = model, loss, adapter
        self.cast, self.teacher, self.tokens_CD = cast or nullcontext(), teacher, tokens_CD
        self.perturbation, self.progress = perturbation, 0.0

    def forward(self, batch: Batch) -> tuple[Terms, Tensor]:
        apart = (
            seeded(torch.initial_seed(), current_shard().index) if batch.mine is not None else nullcontext()
        )
        with self.cast, synchronised(), apart:  # dropout in a part of the rows is no other part's
            output, adapter_loss = self.outputs(batch)
        # Where nothing brings latents to the network, losses alone see them.
        total = len(batch) if batch.latents is None or self.adapter else len(batch.row_B)
        logits, z = (together(x.float(), batch.mine, total) for x in (output.logits_BC, output.z_BF))
        n = len(batch.y_B)
        step = Step(
            id=Output(logits_BC=logits[:n], z_BF=z[:n]),
            y_B=batch.y_B,
            weight_B=batch.weight_B,
            ood=Output(logits_BC=logits[n:], z_BF=z[n:]) if len(logits) > n else None,
            vector_OD=batch.vector_OD,
            near_O=batch.near_O,
            name_O=batch.name_O,
            latent_OFHW=batch.latent_OFHW,
            tokens_CD=self.tokens_CD,
            teacher=self.teacher(batch) if self.teacher else None,
            head=linear_head(self.model),
            progress=self.progress,
        )
        terms = terms_of(self.loss, step)
        if adapter_loss is not None:
            own = adapter_loss.float()
            terms = Terms(total=terms.total + own, parts={**terms.parts, "adapter": own})
        return terms, (logits[:n].argmax(1) == batch.y_B).float().mean()

    def outputs(self, batch: Batch) -> tuple[Output, Tensor | None]:
        """The outputs for this process's images and latents, and the adapter's own loss.

        Raises ValueError, with the adapter's name, for whatever it raises, and for outputs that are not a row
        for each image and each latent.
        """
        images_B3HW = batch.images_B3HW
        if self.perturbation is not None and batch.near_O is not None:
            known = batch.known_images
            near = (
                batch.near_O
                if batch.mine is None
                else batch.near_O[batch.mine[len(known) :] - len(batch.y_B)]
            )
            outliers = self.perturbation(self.model, images_B3HW[len(known) :], near)
            images_B3HW = torch.cat([known.float(), outliers])
        if batch.latents is None or self.adapter is None:
            return self.model(images_B3HW), None
        name = registry.name_of("latent_adapters", self.adapter)
        with blamed(f"The latent adapter {name}", self.adapter):
            given: tuple[Output, Tensor | None] = self.adapter(self.model, images_B3HW, batch.latents)
            check_adapted(given, len(images_B3HW) + len(batch.latents.latent_LFHW))
        return given


def together(part: Tensor, mine: Tensor | None, total: int) -> Tensor:
    """The rows of all processes, of which this one has the first of `mine`; as they are where it is alone."""
    return part if mine is None else gathered(part, mine[: len(part)], total)


def teaching(
    teacher: nn.Module, sources: Sequence[Source], config: Optimisation, device: torch.device
) -> Teacher:
    """The teacher's outputs for a batch's known images; computed once where epochs show equal images."""
    teacher = teacher.to(device).eval()
    unchanged = config.crop_padding == 0 and not config.flip and config.min_area >= 1
    if unchanged and not any(source.role in ("reconstructed", "inlier") for source in sources):
        whole = Extractor(teacher, device=device)(known_images(sources))

        def remembered(batch: Batch) -> Output:
            rows = batch.row_B.cpu()
            return Output(logits_BC=whole.logits_BC[rows].to(device), z_BF=whole.z_BF[rows].to(device))

        return remembered

    @torch.no_grad()
    def ask(batch: Batch) -> Output:
        output: Output = teacher(batch.known_images)
        logits, z = (together(x, batch.mine, len(batch.row_B)) for x in (output.logits_BC, output.z_BF))
        return Output(logits_BC=logits, z_BF=z)

    return ask


def fit(
    model: nn.Module, loss: Loss, sources: Sequence[Source], config: Optimisation, seed: int,
    device: torch.device, state: Path, what: str, *, adapter: LatentAdapter | None = None,
    teacher: nn.Module | None = None, stream: str = "",
) -> list[dict[str, float]]:  # fmt: skip
    """Trains `model` in place and returns the mean loss, ID accuracy and loss parts of each epoch.

    `adapter` takes latents to the model and is trained along, but for what of it requires no gradients;
    `teacher` is asked, not trained. `state` is the file that holds the resume state between epochs; the
    caller removes it. `what` names the training in the progress line, and `stream` (`what` by default) its
    random numbers. Of several processes each takes its part of every batch, and the first one writes; but for
    rounding, and for dropout, they train what one process would.

    Raises ValueError for sources that make no batch, or one of too few images for the processes,
    FloatingPointError on a loss that is not finite, and MemoryShort where memory holds no step.
    """
    shard, stream = current_shard(), stream or what
    check_sources(sources)
    check_shared(sources, config, shard)
    objective = objective_of(model, loss, sources, config, device, adapter, teacher)
    epochs, steps = config.budget(len(known_images(sources)))
    lower = f"Lower the batch ({config.batch})."
    optimizer = sgd(objective.parameters(), config)
    log = resume(state, objective, optimizer, device)
    barrier(device)  # before the first process writes a newer state
    shared = averaged(objective, device).train()
    done, readings = len(log) * steps, Readings(steps, what, config.lr, name_of(loss))
    batches: Iterable[Batch] = (
        batch
        for epoch in range(len(log), epochs)
        for batch in epoch_batches(sources, config, derive(seed, stream), epoch, shard, device)
    )
    if device.type != "cpu" or parallel.CORES > 1:
        batches = ahead(batches)
    bar = progress(batches, total=steps * epochs, done=done, what=what, unit="step")
    for step, batch in enumerate(bar, done):
        lr = config.lr * one_cycle((step + 1) / (steps * epochs))
        objective.progress = step / (steps * epochs)
        # Dropout, where a network has it, belongs to the step.
        with seeded(seed, stream, step, 0), advice(what, lower):
            readings.add(optimize(shared, optimizer, batch, lr), step)
        if (step + 1) % steps == 0:
            log.append(readings.means())
            if is_main():
                modules, momenta = objective.state_dict(), optimizer.state_dict()
                save_state(state, {"modules": modules, "optimizer": momenta, "log": log})
    barrier(device)
    return log


def check_shared(sources: Sequence[Source], config: Optimisation, shard: Shard) -> None:
    """Raises ValueError where a batch has known images or outliers, but not one for every process."""
    for source in sources:
        n = min(config.batch, len(known_images(sources)))
        if 0 < (count := round(source.ratio * n)) < shard.count and source.role in ("known", "outlier"):
            what = "known images" if source.role == "known" else "outliers"
            raise ValueError(
                f"A batch has {count} {what}, too few for {shard.count} processes. Raise "
                "train.optimisation.batch, or start fewer."
            )


def objective_of(
    model: nn.Module,
    loss: Loss,
    sources: Sequence[Source],
    config: Optimisation,
    device: torch.device,
    adapter: LatentAdapter | None,
    teacher: nn.Module | None,
) -> Objective:
    """What `fit` minimises, on the device."""
    known, outliers = source_of(sources, "known"), source_of(sources, "outlier")
    return Objective(
        model.to(device),
        loss,
        cast=autocast(config.precision, device),
        adapter=adapter,
        teacher=teaching(teacher, sources, config, device) if teacher else None,
        tokens_CD=None if known is None or known.vectors is None else known.vectors.to(device),
        perturbation=outliers.perturbation if outliers else None,
    ).to(device)


class Readings:
    """What the steps of an epoch return, read some at a time, for every reading waits for the device."""

    def __init__(self, steps: int, what: str, lr: float, loss: str) -> None:
        self.steps, self.what, self.lr, self.loss = steps, what, lr, loss
        self.unread: list[tuple[int, dict[str, Tensor]]] = []
        self.sums: dict[str, float] = {}

    def add(self, values: dict[str, Tensor], step: int) -> None:
        """Takes what one step returned. Raises FloatingPointError as `read` does."""
        self.unread.append((step, values))
        if len(self.unread) == STEPS_READ_TOGETHER:
            self.read()

    def read(self) -> None:
        """Adds up what is unread. Raises FloatingPointError for a loss that is not finite."""
        for step, tensors in self.unread:
            values = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(self._not_finite(step, values))
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value / self.steps
        self.unread.clear()

    def _not_finite(self, step: int, values: Mapping[str, float]) -> str:
        """What to do where the loss is not finite. Before a weight has changed no rate is to blame."""
        broken = [name for name, value in values.items() if name != "loss" and not math.isfinite(value)]
        parts = f" (its part {', '.join(broken)})" if broken else ""
        became = f"{self.what}: the loss {self.loss}{parts} became {values['loss']} in"
        if step == 0:
            return f"{became} the first step, before any weight has changed: the loss itself is to be mended."
        return f"{became} epoch {step // self.steps + 1}. Lower the learning rate ({self.lr})."

    def means(self) -> dict[str, float]:
        """The means over the epoch that ends; the next one begins with nothing."""
        self.read()
        sums, self.sums = self.sums, {}
        return sums


def optimize(
    objective: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, lr: float
) -> dict[str, Tensor]:
    """One step at the rate `lr`; loss, accuracy and parts before it, each the mean over all processes, on the
    device.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    terms, accuracy = objective(batch)
    optimizer.zero_grad()
    terms.total.backward()
    optimizer.step()
    values = {"loss": terms.total, "accuracy": accuracy, **terms.parts}
    together = mean(torch.stack([value.detach() for value in values.values()]))
    return dict(zip(values, together, strict=True))


def sgd(parameters: Iterable[nn.Parameter], config: Optimisation) -> torch.optim.SGD:
    """SGD with Nesterov momentum 0.9; the rate is the peak's."""
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )


def resume(
    state: Path, objective: Objective, optimizer: torch.optim.Optimizer, device: torch.device
) -> list[dict[str, float]]:
    """Loads the state of a training that was stopped, and returns its log; an empty log where there is
    none.
    """
    if (saved := load_state(state, device)) is None:
        return []
    objective.load_state_dict(saved["modules"])
    optimizer.load_state_dict(saved["optimizer"])
    log: list[dict[str, float]] = saved["log"]
    return log


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 beside float32 for "bf16", and for "auto" where the device has
    matrix units for it.
    """
    mixed_precision = precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
    return torch.autocast(device.type, torch.bfloat16) if mixed_precision else nullcontext()


def one_cycle(t: float) -> float:
    """The rate's factor at share t of the training: linear to 1 over a fifth, then half a cosine to 0."""
    return t / 0.2 if t < 0.2 else 0.5 * (1 + math.cos(math.pi * (t - 0.2) / 0.8))
