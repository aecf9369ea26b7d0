"""The verb that hands a guard over: a folder as the Hugging Face hub has them, with a model card, and if
asked an ONNX graph.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import StoreError
from ..core.files import atomic_folder, write_bytes
from ..core.results import Row
from ..core.types import Json
from ..models.inference import cost
from .guard import Guard
from .onnx import to_onnx
from .stored import CONFIG_FILE, name_of

__all__ = ["card", "export"]

ONNX_FILE = "guard.onnx"


def export(guard: Guard, folder: Path, rows: Sequence[Row] = (), onnx: bool = False) -> float | None:
    """Writes the folder: network, detector and threshold for `Guard.load`, a model card, and with `onnx` a
    graph.

    `rows` are measurements of this classifier with this detector, for the card. Returns the largest
    difference between the scores of the graph and of the guard on the pictures that they are compared on. All
    is written or nothing.

    Raises StoreError for a folder that holds something, and ExportError for a guard that cannot become a
    graph or would answer otherwise there.
    """
    rows = [row for row in rows if row.group != "control"]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} holds something already. Choose another folder, or empty it.")
    difference = None
    with atomic_folder(folder) as fresh:
        guard.save(fresh)
        if onnx:
            difference = to_onnx(guard, fresh / ONNX_FILE)
        write_bytes(fresh / "README.md", card(guard, rows, folder.resolve().name, onnx).encode())
    return difference


def card(guard: Guard, rows: Sequence[Row], name: str, onnx: bool = False) -> str:
    """The model card: YAML front matter as the hub reads it, then what the guard is for, its guarantee and
    limits.
    """
    # A JSON value is a YAML value.
    front = _front_matter(rows, name, onnx)
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    parts = f"---\n{yaml}\n---", f"# {name}", _about(guard), _use(guard, name, onnx), _caveats(guard, rows)
    return "\n\n".join(parts) + "\n"


def _about(guard: Guard) -> str:
    backbone = guard.classifier.settings["backbone"]
    names, detector, size, n = guard.names, name_of(guard.detector), guard.size, len(guard.names)
    limit = "the threshold of the class it is taken for" if guard.per_class else f"{guard.threshold:.6g}"
    return f"""An image classifier that says "unknown" of a picture that shows none of its {n} classes:
{", ".join(names)}.

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


def _use(guard: Guard, name: str, onnx: bool) -> str:
    files = "\n".join(f"| `{file}` | {what} |" for file, what in _files(guard, onnx).items())
    return f"""## Use

```python
from oodream import Guard

guard = Guard.load("{name}")  # this folder; a repository of the hub is "hub:OWNER/NAME"
prediction = guard.predict("picture.jpg")  # a path, a PIL image, an array, a tensor, or several of them
print(prediction.answer, prediction.flagged, prediction.score, prediction.p_value)
```

`guard.at(alpha)` is the same guard with another rate of false alarms.
{_onnx_use() if onnx else ""}
| file | holds |
| --- | --- |
{files}"""


def _caveats(guard: Guard, rows: Sequence[Row]) -> str:
    return f"""## What it is for

For telling the classes above apart where other things may come before the camera, and for handing these to a
person or to another model. A prediction is no explanation; a class is named only with the network's own
accuracy.

## How the threshold is guaranteed

The threshold is {_rank(guard)} of the scores of {guard.guarantee.n:,} known images that neither the
network nor the detector has learned from. The guarantee holds for pictures that come from where these came
from, whatever the scores' distribution. It says nothing about known classes that look otherwise (another
camera, weather, style), and nothing about how many unknown pictures are flagged: that is measured, below, on
some kinds of them. `guard.drift` shows whether a stream has moved away.

## Measured

{_table(rows)}

## Limits

- It has been measured on the sets above and on no others; a kind of picture that is not among them may be
  taken for known.
- Pictures are read upright, in RGB, their centre square at {guard.size} pixels: what lies outside of it or is
  smaller is not seen.
- Classes that look alike are confused as by any classifier; "unknown" does not mean "wrong"."""


def _front_matter(rows: Sequence[Row], name: str, onnx: bool) -> Json:
    results: list[Json] = [
        {
            "task": {"type": "image-classification", "name": "Out-of-distribution detection"},
            "dataset": {"type": row.dataset, "name": f"{row.dataset} ({row.group}-OOD)"},
            "metrics": [
                {"type": "auroc", "value": round(row.auroc, 4)},
                {
                    "type": "fpr95",
                    "value": round(row.fpr95_id, 4),
                    "name": "share of OOD accepted where 95 % of ID is",
                },
            ],
        }
        for row in rows
        if row.dataset != "mean"
    ]
    if rows:
        accuracy = [{"type": "accuracy", "value": round(rows[0].accuracy, 4)}]
        known = {"type": "known", "name": "known test images"}
        results.insert(0, {"task": {"type": "image-classification"}, "dataset": known, "metrics": accuracy})
    tags = ["out-of-distribution-detection", "image-classification", "oodream"]
    return {
        "library_name": "oodream",
        "pipeline_tag": "image-classification",
        "tags": tags + (["onnx"] if onnx else []),
        **({"model-index": [{"name": name, "results": results}]} if results else {}),
    }


def _files(guard: Guard, onnx: bool) -> dict[str, str]:
    files = {
        CONFIG_FILE: "classes, size, backbone, detector, threshold and guarantee",
        "model.safetensors": "the network",
        "loss.safetensors": "the loss's own weights",
        "guard.safetensors": "what the detector has learned, and the held-out images' scores",
        ONNX_FILE: "the whole guard as a graph, from pixels of any size to logits, score and unknown",
    }
    if not guard.classifier.loss.state_dict():
        del files["loss.safetensors"]
    if not onnx:
        del files[ONNX_FILE]
    return files


def _rank(guard: Guard) -> str:
    if guard.guarantee.confidence is None:
        return "a conformal quantile (Vovk et al. 2005)"
    return "an upper tolerance limit (Wilks 1941)"


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return "Nothing has been measured with this guard."
    lines = [
        "| unknown pictures | group | AUROC | OOD accepted where 95 % of known are | images |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.dataset} | {row.group} | {row.auroc:.1%} | {row.fpr95_id:.1%} | {row.n_ood:,} |"
            for row in rows
        ),
    ]
    accuracy = f"Accuracy on {rows[0].n_id:,} known test images: {rows[0].accuracy:.1%}."
    return "\n".join(lines) + f"\n\n{accuracy} None of these numbers depends on the guard's threshold."


def _onnx_use() -> str:
    return f"""
Without oodream, through the graph (pictures upright, in RGB):

```python
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{ONNX_FILE}")
pixels = np.asarray(Image.open("picture.jpg").convert("RGB")).transpose(2, 0, 1)[None]
logits, score, unknown = session.run(None, {{"images": pixels}})
```

A second input, `threshold`, takes the place of the guard's.
"""
