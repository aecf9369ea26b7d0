"""The verb that hands a guard over: a folder as the Hugging Face hub has them, with a model card, and if
asked graphs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import StoreError
from ..core.files import atomic_folder, write_bytes
from ..core.results import Row
from ..core.types import Json
from ..models.inference import cost
from .guard import Guard
from .onnx import to_onnx
from .openvino import VINO_FILES, to_openvino
from .quantize import INT8_FILE, Int8Images, Quantized, quantize
from .stored import CONFIG_FILE, name_of

__all__ = ["Exported", "card", "export"]

ONNX_FILE = "guard.onnx"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The largest differences between the scores of the graphs in floating point and of the guard, and what
    the graph in integers costs; None for what there is not.
    """

    onnx: float | None = None
    openvino: float | None = None
    int8: Quantized | None = None


def export(
    guard: Guard,
    folder: Path,
    rows: Sequence[Row] = (),
    *,
    onnx: bool = False,
    openvino: bool = False,
    int8: Int8Images | None = None,
) -> Exported:
    """Writes the folder: network, detector and threshold for `Guard.load`, a model card, and graphs.

    `rows` are measurements of this classifier with this detector, for the card. With `onnx` there is an ONNX
    graph; with `openvino` and `int8` there are one in OpenVINO's format and one in 8-bit integers, too, which
    are made from it. All is written or nothing.

    Raises StoreError for a folder that holds something, and ExportError for missing packages, and for a guard
    that cannot become a graph or would answer otherwise there.
    """
    rows = [row for row in rows if row.group != "control"]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} holds something already. Choose another folder, or empty it.")
    exported = Exported()
    with atomic_folder(folder) as fresh:
        guard.save(fresh)
        graph = fresh / ONNX_FILE
        if onnx or openvino or int8:
            exported = replace(exported, onnx=to_onnx(guard, graph))
        if openvino:
            exported = replace(exported, openvino=to_openvino(guard, graph, fresh))
        if int8:
            exported = replace(exported, int8=quantize(graph, fresh / INT8_FILE, int8))
        write_bytes(fresh / "README.md", card(guard, rows, folder.resolve().name, exported).encode())
    return exported


NOTHING = Exported()


def card(guard: Guard, rows: Sequence[Row], name: str, exported: Exported = NOTHING) -> str:
    """The model card: YAML front matter as the hub reads it, then what the guard is for, its guarantee and
    limits.
    """
    # A JSON value is a YAML value.
    front = _front_matter(rows, name, exported.onnx is not None)
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    parts = (
        f"---\n{yaml}\n---",
        f"# {name}",
        _about(guard),
        _use(guard, name, exported),
        _caveats(guard, rows, exported),
    )
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


def _use(guard: Guard, name: str, exported: Exported) -> str:
    files = "\n".join(f"| `{file}` | {what} |" for file, what in _files(guard, exported).items())
    return f"""## Use

```python
from oodream import Guard

guard = Guard.load("{name}")  # this folder; a repository of the hub is "hub:OWNER/NAME"
prediction = guard.predict("picture.jpg")  # a path, a PIL image, an array, a tensor, or several of them
print(prediction.answer, prediction.flagged, prediction.score, prediction.p_value)
```

`guard.at(alpha)` is the same guard with another rate of false alarms.
{_onnx_use(name) if exported.onnx is not None else ""}
| file | holds |
| --- | --- |
{files}"""


def _caveats(guard: Guard, rows: Sequence[Row], exported: Exported) -> str:
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

{_in_integers(exported.int8)}## Limits

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


def _files(guard: Guard, exported: Exported) -> dict[str, str]:
    xml, weights = VINO_FILES
    files = {
        CONFIG_FILE: "classes, size, backbone, detector, threshold and guarantee",
        "model.safetensors": "the network",
        "guard.safetensors": "what the detector has learned, and the held-out images' scores",
    }
    if guard.classifier.loss.state_dict():
        files["loss.safetensors"] = "the loss's own weights"
    if exported.onnx is not None:
        files[ONNX_FILE] = "the whole guard as a graph, from pixels of any size to logits, score and unknown"
    if exported.openvino is not None:
        files |= {xml: "the same graph for OpenVINO", weights: "its weights"}
    if exported.int8:
        files[INT8_FILE] = "the graph in 8-bit integers, with a threshold of its own"
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
