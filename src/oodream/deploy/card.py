"""The model card of a guard: what the hub reads of it, what it is for, its guarantee and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..core.errors import listed
from ..models.inference import cost
from .measured import MEAN, UNMEASURED, Measured, Measurements
from .stored import CONFIG_FILE, HUB, INT8_FILE, ONNX_FILE, VINO_FILES, code_of, name_of

if TYPE_CHECKING:
    from .export import Exported
    from .guard import Guard
    from .quantize import Quantized

__all__ = ["card", "card_head"]


def card(
    guard: Guard,
    place: str,
    measured: Measurements = UNMEASURED,
    exported: Exported | None = None,
    license: str | None = None,
) -> ModelCard:
    """The model card of a guard that lies in `place`, a folder or "hub:OWNER/NAME".

    `measured` are the guard's numbers, `exported` says which graphs lie beside it, and `license` is an
    identifier of the hub's.
    """
    name, with_graph = place.removeprefix(HUB), exported is not None and exported.onnx is not None
    head = card_head(place, measured, with_graph=with_graph, license=license)
    parts = f"# {name}", _about(guard), _use(guard, place, exported), _caveats(guard, measured, exported)
    return ModelCard("\n\n".join([head, *parts]) + "\n")


def card_head(place: str, measured: Measurements, *, with_graph: bool, license: str | None) -> str:
    """What programs read of `card`: YAML between two lines of dashes."""
    results = _results(measured)
    data = ModelCardData(
        library_name="oodream",
        license=license,
        pipeline_tag="image-classification",
        tags=["out-of-distribution-detection", "image-classification", "oodream", *["onnx"] * with_graph],
        model_name=place.removeprefix(HUB),
        eval_results=results or None,
    )
    if not results:
        data.pop("model_name")
    return f"---\n{data.to_yaml()}\n---"


def _results(measured: Measurements) -> list[EvalResult]:
    """The measurements as the hub shows them, but for the mean over sets."""
    task = "image-classification"
    results = []
    if measured.accuracy is not None:
        accuracy = round(measured.accuracy, 4)
        results.append(EvalResult(task, "known", "known images", "accuracy", accuracy))
    for one in measured.unknown:
        if one.name != MEAN:
            about: dict[str, Any] = {
                "task_type": task,
                "task_name": "Out-of-distribution detection",
                "dataset_type": one.name,
                "dataset_name": f"{one.name} ({one.group}-OOD)",
            }
            results += [
                EvalResult(**about, metric_type="auroc", metric_value=round(one.auroc, 4)),
                EvalResult(
                    **about, metric_type="fpr95", metric_value=round(one.fpr95_id, 4),
                    metric_name="share of OOD accepted where 95 % of ID is",
                ),
            ]  # fmt: skip
    return results


def _about(guard: Guard) -> str:
    backbone = guard.classifier.settings["backbone"]
    names, detector, size, n = guard.names, name_of(guard.detector), guard.size, len(guard.names)
    limit = "the threshold of the class it is taken for" if guard.per_class else f"{guard.threshold:.6g}"
    return f"""An image classifier that says "unknown" of a picture that shows none of its {n} classes:
{escape(", ".join(names), quote=False)}.

- Network: `{backbone}`, images of {size} x {size} pixels; {_cost(guard)}
- Detector: `{detector}`; a picture whose score exceeds {limit} is flagged: called unknown
- Guarantee: {guard.guarantee}"""


def _cost(guard: Guard) -> str:
    """What the network takes: of one in a file of another format the bytes of that."""
    content = guard.network.state_dict().get("network.content")
    if content is not None:
        return f"a file of {len(content) / 1e6:.1f} MB"
    parameters, operations = cost(guard.network, guard.size)
    return f"{parameters:,} parameters,\n  {operations / 1e6:,.1f} MFLOP an image"


def _use(guard: Guard, place: str, exported: Exported | None) -> str:
    files, code = _files(guard, exported), code_of(guard)
    table = "\n".join(f"| `{file}` | {what} |" for file, what in files.items())
    return f"""## Use

```python
from oodream import Guard

guard = {_loading(place, bool(code))}
prediction = guard.predict("picture.jpg")  # a path, a PIL image, an array, a tensor, or several of them
print(prediction.answer, prediction.flagged, prediction.score, prediction.p_value)
```

{_code_is_run(code)}`guard.at(alpha)` is the same guard with another rate of false alarms.
{_onnx_use(place) if exported and exported.onnx is not None else ""}
| file | holds |
| --- | --- |
{table}"""


def _loading(place: str, plugins: bool) -> str:
    wanted = ", plugins=True" if plugins else ""
    if place.startswith(HUB):
        return f'Guard.from_pretrained("{place.removeprefix(HUB)}"{wanted})'
    return f'Guard.load("{place}"{wanted})  # this folder; a repository of the hub is "hub:OWNER/NAME"'


def _code_is_run(code: list[str]) -> str:
    """A paragraph on what `plugins=True` allows; empty for a guard that is data alone."""
    if not code:
        return ""
    names = listed(f"`{name}`" for name in code)
    return f"With `plugins=True` code is run: {names}. Allow it where you trust who made this guard.\n\n"


def _caveats(guard: Guard, measured: Measurements, exported: Exported | None) -> str:
    return f"""## What it is for

For telling the classes above apart where other things may come before the camera, and for handing these to a
person or to another model. A prediction is no explanation; a class is named only with the network's own
accuracy.

## How the threshold is guaranteed

The threshold is {_rank(guard)} of the scores of {guard.guarantee.n:,} known images that
{_not_learned_from(measured)} The guarantee holds for pictures that come from where these came
from, whatever the scores' distribution. It says nothing about known classes that look otherwise (another
camera, weather, style), and nothing about how many unknown pictures are flagged: {_of_unknown(measured)}.
`guard.drift` shows whether a stream has moved away.

## Measured

{_numbers(measured)}

{_in_integers(exported.int8 if exported else None)}## Limits

- {_tried_on(measured)}
- Pictures are read upright, in RGB, their centre square at {guard.size} pixels: what lies outside of it or is
  smaller is not seen.
- Classes that look alike are confused as by any classifier; "unknown" does not mean "wrong"."""


def _files(guard: Guard, exported: Exported | None) -> dict[str, str]:
    files = {
        CONFIG_FILE: "classes, size, backbone, detector, threshold and guarantee",
        "model.safetensors": "the network",
        "guard.safetensors": "what the detector has learned, and the held-out images' scores",
    }
    if guard.classifier.loss.state_dict():
        files["loss.safetensors"] = "the loss's own weights"
    if exported is None:
        return files
    if exported.onnx is not None:
        files[ONNX_FILE] = "the whole guard as a graph, from pixels of any size to logits, score and unknown"
    if exported.openvino is not None:
        files |= dict(zip(VINO_FILES, ("the same graph for OpenVINO", "its weights"), strict=True))
    if exported.int8:
        files[INT8_FILE] = "the graph in 8-bit integers, with a threshold of its own"
    return files


def _rank(guard: Guard) -> str:
    if guard.guarantee.confidence is None:
        return "a conformal quantile (Vovk et al. 2005)"
    return "an upper tolerance limit (Wilks 1941)"


def _not_learned_from(measured: Measurements) -> str:
    if not measured.supposed:
        return "neither the\nnetwork nor the detector has learned from."
    return """the detector
has not learned from. The promise supposes that the network was not trained on these images either, which
nobody knows here: where it was, more known pictures may be flagged than is promised."""


def _of_unknown(measured: Measurements) -> str:
    if measured.unknown:
        return "that is measured,\nbelow, on some kinds of them"
    return "nothing\nof that stands here"


def _tried_on(measured: Measurements) -> str:
    if measured.unknown:
        return (
            "It has been measured on the sets above and on no others; a kind of picture that is not among\n"
            "  them may be taken for known."
        )
    return "No measurement on unknown pictures stands here; any kind of them may be taken for known."


def _numbers(measured: Measurements) -> str:
    parts = [_table(measured.unknown)] if measured.unknown else []
    if measured.accuracy is not None:
        parts.append(f"Accuracy on {measured.known:,} known images: {measured.accuracy:.1%}.")
    if not measured.unknown:
        parts.append("No measurement of this guard on unknown pictures stands here.")
    return "\n\n".join(parts)


def _table(unknown: Sequence[Measured]) -> str:
    """The unknown sets, with a column of the shares flagged where these are known."""
    flagged = any(one.flagged is not None for one in unknown)
    head = ["unknown pictures", "group", "AUROC", "OOD accepted where 95 % of known are", "images"]
    rows = [[one.name, one.group, f"{one.auroc:.1%}", f"{one.fpr95_id:.1%}", f"{one.n:,}"] for one in unknown]
    if flagged:
        head.append("flagged by this guard")
        for row, one in zip(rows, unknown, strict=True):
            row.append("" if one.flagged is None else f"{one.flagged:.1%}")
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    but = "but for the shares flagged " if flagged else ""
    return "\n".join(lines) + f"\n\nNone of these numbers {but}depends on the guard's threshold."


def _in_integers(int8: Quantized | None) -> str:
    return f"## In 8-bit integers\n\n{int8}\n\n" if int8 else ""


def _onnx_use(name: str) -> str:
    return f"""
Without PyTorch, by onnxruntime, NumPy and Pillow alone (a graph's file in place of the folder is another of
its graphs):

```python
from oodream.runtime import Guard

guard = Guard.load("{name}")
prediction = guard.predict("picture.jpg")
```

Without oodream, through the graph (pictures upright, in RGB):

```python
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{ONNX_FILE}")
pixels = np.asarray(Image.open("picture.jpg").convert("RGB")).transpose(2, 0, 1)[None]
logits, score, unknown = session.run(["logits", "score", "unknown"], {{"images": pixels}})
```

A second input, `threshold`, takes the place of the guard's.
"""
