"""The verb that hands a guard over: a folder as the Hugging Face hub has them, with a model card, and if asked an ONNX graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import StoreError
from ..core.files import atomic_folder, write_bytes
from ..core.results import Row
from ..models.inference import cost
from .guard import OWN, Guard, name_of
from .onnx import to_onnx

ONNX = "guard.onnx"


def export(guard: Guard, folder: Path, rows: Sequence[Row] = (), onnx: bool = False) -> float | None:
    """Writes the folder: network, detector and threshold for `Guard.load`, a model card with `rows`, and with `onnx` a graph.

    `rows` are measurements of this classifier with this detector. Returns the largest difference between the scores of the graph
    and of the guard on the pictures they are compared on. All is written or nothing: StoreError for a folder that holds something,
    ExportError for a guard that cannot become a graph or would answer otherwise there.
    """
    rows = [row for row in rows if row.group != "control"]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} holds something already. Choose another folder, or empty it.")
    worst = None
    with atomic_folder(folder) as fresh:
        guard.save(fresh)
        if onnx:
            worst = to_onnx(guard, fresh / ONNX)
        write_bytes(fresh / "README.md", card(guard, rows, folder.resolve().name, onnx).encode())
    return worst


def card(guard: Guard, rows: Sequence[Row], name: str, onnx: bool = False) -> str:
    """The model card: YAML front matter as the hub reads it, then what the guard is for, what it promises, and its limits."""
    detector, backbone = name_of(guard.detector), guard.classifier.told["backbone"]
    parameters, flop = cost(guard.network, guard.size)
    metrics = [
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
        metrics.insert(0, {"task": {"type": "image-classification"}, "dataset": known, "metrics": accuracy})
    front = {
        "library_name": "oodream",
        "pipeline_tag": "image-classification",
        "tags": [
            "out-of-distribution-detection",
            "image-classification",
            "oodream",
            *(["onnx"] if onnx else []),
        ],
        **({"model-index": [{"name": name, "results": metrics}]} if metrics else {}),
    }
    # A JSON value is a YAML value.
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    files = {
        OWN: "classes, size, backbone, detector, threshold and promise",
        "model.safetensors": "the network",
        **({"loss.safetensors": "the loss's own weights"} if guard.classifier.loss.state_dict() else {}),
        "guard.safetensors": "what the detector has learnt, and held-out scores",
        **(
            {ONNX: "the whole guard as a graph, from pixels of any size to logits, score and unknown"}
            if onnx
            else {}
        ),
    }
    return f"""---
{yaml}
---

# {name}

An image classifier that says "unknown" of a picture that shows none of its {len(guard.names)} classes: {", ".join(guard.names)}.

- Network: `{backbone}`, images of {guard.size} x {guard.size} pixels; {parameters:,} parameters, {flop / 1e6:,.1f} MFLOP an image
- Detector: `{detector}`; a score above {guard.threshold:.6g} means unknown
- Guarantee: {guard.promise}

## Use

```python
from oodream import Guard

guard = Guard.load("{name}")  # this folder; a repository of the hub is "hub:OWNER/NAME"
verdict = guard.predict("picture.jpg")  # a path, a PIL image, an array, a tensor, or several of them
print(verdict.answer, verdict.score)
```
{_onnx_use() if onnx else ""}
| file | holds |
| --- | --- |
{chr(10).join(f"| `{file}` | {what} |" for file, what in files.items())}

## What it is for

For telling the classes above apart where other things may come before the camera, and for handing these to a person or to another
model. A verdict is no explanation; a class is named only with the network's own accuracy.

## How the threshold is promised

The threshold is {_ranked(guard)} of the scores of {guard.promise.n:,} known images that neither the network nor the detector
has learnt from. The promise holds for pictures that come from where these came from, whatever the scores' distribution. It says
nothing about known classes seen otherwise (another camera, weather, style), and nothing about how many unknown pictures are caught:
that is measured, below, on some kinds of them. `guard.drift` shows whether a stream has moved away.

## Measured

{_table(rows)}

## Limits

- It has been measured on the sets above and on no others; a kind of picture that is not among them may be taken for known.
- Pictures are read upright, in RGB, their centre square at {guard.size} pixels: what lies outside of it or is smaller is not seen.
- Classes that look alike are confused as by any classifier; "unknown" does not mean "wrong".
"""


def _ranked(guard: Guard) -> str:
    if guard.promise.confidence is None:
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

session = onnxruntime.InferenceSession("{ONNX}")
pixels = np.asarray(Image.open("picture.jpg").convert("RGB")).transpose(2, 0, 1)[None]
logits, score, unknown = session.run(None, {{"images": pixels}})
```
"""
