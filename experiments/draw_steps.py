"""What fewer steps, and guidance in an interval alone, do to imagined outliers: the curve for drawings.

Eleven of the preset `doodles`' known things that have a known relative are left out and stand for the unknown
ones; the unknown test classes are never looked at. Known drawings become other things, as the preset has it
(the last 70 % of the steps), and 1,200 of them are trained on as unknown, beside reconstructions. The same
known drawings, words and noise serve all settings. Every line is a training of 25 epochs: AUROC of the energy
score on the classes left out, and accuracy, with the seconds of the processor for an image.

Features are plain ones, the preset's before 0.11.0. The same command again goes on where it was stopped.

python experiments/draw_steps.py --out runs/draw-steps --seeds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from oodream.core.files import write_bytes
from oodream.core.tensors import load_tensors, save_tensors
from oodream.data.doodles import DOODLES_WORLD
from oodream.data.images import Images, from_array
from oodream.data.inputs import DataInputs
from oodream.functional.metrics import auroc
from oodream.models.inference import Extractor
from oodream.presets import PRESETS
from oodream.synthesis.decode import make_decoder
from oodream.synthesis.known import Known
from oodream.training.augment import gray_fraction
from oodream.training.detail import Detail
from oodream.training.sources import Source
from oodream.training.train import make_loss, train

LEFT_OUT = (
    "bus", "cat", "elephant", "fork", "chair", "butterfly", "pencil", "castle", "eyeglasses", "sun",
    "hamburger",
)  # fmt: skip
OUTLIERS, CPU = 1200, torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """How outliers are drawn."""

    steps: int
    guided_from: float = 0.0
    guided_until: float = 1.0
    guidance: float = 3.0

    def __str__(self) -> str:
        interval = f"from {self.guided_from:g} to {self.guided_until:g}"
        return f"{self.steps} steps, guidance {self.guidance:g} {interval}"


SETTINGS = (
    Setting(16),
    Setting(8),
    Setting(5),
    Setting(3),
    Setting(16, 0.3, 0.7),
    Setting(8, 0.3, 0.7),
    Setting(5, 0.3, 0.7),
    Setting(16, 0.5, 1.0),
    Setting(16, guidance=1.0),
)


class Doodles:
    """The preset's data without the classes left out, and what all settings share."""

    def __init__(self, out: Path) -> None:
        self.out, self.config = out, replace(PRESETS["doodles"].config, validate=LEFT_OUT)
        self.inputs = DataInputs(self.config)
        self.known, self.test = self.inputs.train, self.inputs.test
        self.near = next(s.images for s in self.inputs.ood if s.group == "near")
        self.gray = 0.5 * gray_fraction(self.known)
        self.rebuilt = self.images("rebuilt", lambda: self.decoder(SETTINGS[0]).reconstruct(self.all()))
        self.detail = Detail(
            known=self.known, reconstructed=self.set("rebuilt", self.rebuilt, self.known.labels)
        )

    def all(self) -> Tensor:
        return self.known.batch(range(len(self.known)))

    def images(self, name: str, make: object) -> Tensor:
        file = self.out / f"{name}.safetensors"
        if not file.exists():
            assert callable(make)
            began = time.process_time()
            pictures = make()
            seconds = torch.tensor((time.process_time() - began) / len(pictures))
            save_tensors(file, {"images": pictures, "seconds": seconds})
        return load_tensors(file)["images"]

    def set(self, name: str, pictures: Tensor, labels: Tensor) -> Images:
        return from_array(name, pictures, labels, self.known.classes)

    def decoder(self, setting: Setting):  # type: ignore[no-untyped-def]
        decode = self.config.decode
        interval = {"guided_from": setting.guided_from, "guided_until": setting.guided_until}
        config = replace(
            decode, steps=setting.steps, guidance=setting.guidance, options={**decode.options, **interval}
        )
        names = self.known.classes
        return make_decoder(
            config, names, self.inputs.prompts(names), self.config.size, CPU, self.inputs.prompt_spans(names),
            Known(images=lambda: self.known, baseline=lambda: torch.nn.Identity()),
        )  # fmt: skip

    def outliers(self, setting: Setting) -> Tensor:
        def draw() -> Tensor:
            decoder = self.decoder(setting)
            words = decoder.words(list(DOODLES_WORLD))
            g, n = torch.Generator().manual_seed(1), len(words.names)
            pick = torch.cat([torch.randperm(n, generator=g) for _ in range(-(-OUTLIERS // n))])[:OUTLIERS]
            y = torch.arange(OUTLIERS) % len(self.known.classes)
            return decoder(words.z_VD[pick], y, torch.arange(OUTLIERS)).images_B3HW

        return self.images(str(setting), draw)

    def trained(self, setting: Setting | None, seed: int) -> dict[str, float]:
        """AUROC near the known classes and accuracy after a training with these outliers, or with none."""
        soften, known = 0.75, Source(role="known", data=self.known)
        sources, loss = [known], make_loss(("cross_entropy",), {})
        if setting is not None:
            outliers = self.set("outliers", self.outliers(setting), torch.zeros(OUTLIERS, dtype=torch.long))
            sources += [
                Source(role="reconstructed", data=self.detail.reconstructed, ratio=0.25, detail=self.detail),
                Source(
                    role="outlier", data=outliers, ratio=0.5, detail=self.detail, grayscale_prob=self.gray
                ),
            ]
            loss = make_loss(("energy_logistic",), {})
        c = self.config.train
        optimisation = replace(c.optimisation, epochs=25, precision="auto")
        c = replace(c, backbone="resnet8", soften=soften, optimisation=optimisation)
        state = self.out / "training"
        state.unlink(missing_ok=True)
        softened = [replace(source, soften=soften) for source in sources]
        trained = train(softened, c, seed, CPU, state, str(setting), loss=loss, stream="x")
        state.unlink(missing_ok=True)
        extractor = Extractor(trained.network, device=CPU)
        output, near = extractor(self.test), extractor(self.near)
        right = (output.logits_BC.argmax(1) == self.test.labels).float().mean()
        scores = (-x.logits_BC.logsumexp(1) for x in (output, near))
        return {"near": 100 * float(auroc(*scores)), "accuracy": 100 * float(right)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/draw-steps"))
    parser.add_argument("--seeds", type=int, default=3)
    every = range(len(SETTINGS))
    said = "; ".join(f"{i}: {setting}" for i, setting in enumerate(SETTINGS))
    parser.add_argument("--settings", type=int, nargs="+", choices=every, default=every, help=said)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    doodles, file = Doodles(args.out), args.out / "results.json"
    results: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    settings = [*(SETTINGS[i] for i in args.settings), None]
    for seed in range(args.seeds):
        for setting in settings:
            key = f"{setting or 'no outliers'} | {seed}"
            if key not in results:
                results[key] = doodles.trained(setting, seed)
                write_bytes(file, json.dumps(results, indent=1).encode())
                print(key, results[key], flush=True)
    for setting in settings:
        rows = [v for k, v in results.items() if k.startswith(f"{setting or 'no outliers'} | ")]
        cells = [
            f"{statistics.mean(x):.1f} ± {statistics.stdev(x) if len(x) > 1 else 0:.1f}"
            for x in ([row[key] for row in rows] for key in ("near", "accuracy"))
        ]
        drawn = args.out / f"{setting}.safetensors"
        ms = 1000 * float(load_tensors(drawn)["seconds"]) if setting else 0
        print(f"| {setting or 'no outliers'} | {' | '.join(cells)} | {ms:.0f} |")


if __name__ == "__main__":
    main()
