"""A guard on disk: where it lies, and what its files say.

A guard's own folder holds `config.json`, `model.safetensors`, `loss.safetensors` (where the loss has weights)
and `guard.safetensors`. In a run, `guard/guard.json` and `guard/guard.safetensors` name the run's classifier
instead.

The JSON has `classifier` (a description with `names` and `size`, or a path), `detector` (`name`, `options`),
`threshold`, `class_thresholds` (one for each class in the order of the names, or null: then `threshold`
is for all) and `guarantee` (`kind`, `alpha`, `confidence`, `n`, `too_few`). A picture is flagged where its
score exceeds the threshold, or that of the class it is taken for. The tensors are what `HeldOut` keeps,
and under `detector.` what the detector has learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from ..core import registry
from ..core.errors import MissingCode, StoreError, brief, shown
from ..core.faults import PluginFault
from ..core.files import read_json, write_json
from ..core.folders import check_is_there, is_within
from ..core.options import ConfigError
from ..core.tensors import load_tensors, save_tensors
from ..core.types import Detector, Json
from ..data.stream import HUB
from ..detection.detectors import restore, state
from ..models.classifier import HARMLESS, check_plugin, from_description, is_code, load_classifier
from ..runtime.calibration import Guarantee
from ..runtime.description import check_parts
from ..runtime.held_out import HeldOut

if TYPE_CHECKING:
    from .guard import Guard

__all__ = [
    "CONFIG_FILE",
    "HUB",
    "INT8_FILE",
    "ONNX_FILE",
    "RUN_FILE",
    "TENSORS_FILE",
    "VINO_FILES",
    "code_of",
    "described",
    "fetched",
    "make_detector",
    "name_of",
    "options_of",
    "read",
    "write",
]

CONFIG_FILE = "config.json"  # of a guard's own folder
RUN_FILE = "guard.json"  # of a guard in a run
TENSORS_FILE = "guard.safetensors"
AGAIN = "Make the guard again: the command that made it with --redo, that of its run with --redo guard."
ONNX_FILE, INT8_FILE, VINO_FILES = "guard.onnx", "guard-int8.onnx", ("guard.xml", "guard.bin")  # graphs of it
ARRAYS = {
    "score_N": torch.float64, "likeliest_N": torch.int64, "rank_N": torch.int64,
    "probability_N": torch.float64, "above_N": torch.float64,
}  # fmt: skip
"""what `HeldOut` keeps"""
DETECTOR = "detector."  # begins the names of what the detector has learned


def write(guard: Guard, folder: Path, classifier: str = "") -> None:
    """Writes the folder; `Guard.save` says how."""
    if not classifier:
        guard.classifier.save_weights(folder)
    learned = {DETECTOR + name: tensor for name, tensor in state(guard.detector).items()}
    held_out = {name: torch.from_numpy(array) for name, array in guard.held_out.arrays().items()}
    save_tensors(folder / TENSORS_FILE, {**held_out, **learned})
    write_json(folder / (RUN_FILE if classifier else CONFIG_FILE), described(guard, classifier), sealed=True)


def described(guard: Guard, classifier: str = "") -> Json:
    """All but the tensors."""
    return {
        "library_name": "oodream",
        "classifier": classifier or guard.classifier.described(),
        "detector": {"name": name_of(guard.detector), "options": options_of(guard.detector)},
        "threshold": guard.threshold,
        "class_thresholds": guard.threshold_C.tolist() if guard.per_class else None,
        "guarantee": {"kind": guard.guarantee.kind, **asdict(guard.guarantee)},
    }


def read(folder: Path | str, device: torch.device | str, plugins: bool) -> dict[str, Any]:
    """The fields of the guard in a folder or on the hub; `Guard.load` says which, and what is refused."""
    on_hub = str(folder).startswith(HUB)
    file, root = _find(fetched(str(folder).removeprefix(HUB)) if on_hub else Path(folder))
    config = read_json(file, AGAIN)
    try:
        if isinstance(config["classifier"], str):
            classifier = load_classifier(_inside(root, config["classifier"], file), plugins)
        else:
            classifier = from_description(config["classifier"], file.parent, plugins)
        name, options = config["detector"]["name"], config["detector"]["options"]
        check_plugin(name, file.parent, plugins)
        detector = make_detector(name, **options)
        guarantee = {key: value for key, value in config["guarantee"].items() if key != "kind"}
        tensors = load_tensors(file.with_name(TENSORS_FILE))
        if "score_Q" in tensors:
            raise StoreError(
                f"{file} was written by version 0.3 or earlier, which kept only some of its held-out scores. "
                f"{AGAIN} Then oodream export."
            )
        learned = {key.removeprefix(DETECTOR): t for key, t in tensors.items() if key.startswith(DETECTOR)}
        arrays = _arrays(tensors)
        parts = {"threshold": config["threshold"], "guarantee": Guarantee(**guarantee)}
        check_parts(classifier.names, classifier.size, classifier.white, arrays=arrays, **parts)
        classifier.network.to(torch.device(device))
        return {
            "classifier": classifier,
            "detector": restore(detector, learned),
            "held_out": HeldOut.from_arrays(arrays),
            **parts,
        }
    except (MissingCode, PluginFault) as error:
        raise StoreError(f"{error} ({shown(file)} names it)") from error
    except (KeyError, TypeError, AttributeError, ValueError, FileNotFoundError) as error:
        reason = str(error) if type(error) in (ValueError, ConfigError) else brief(error)
        raise StoreError(
            f"{shown(file)} or its tensors are damaged, or were written by another version ({reason}). "
            f"{AGAIN}"
        ) from error


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """What is kept of held-out images, in the kinds of numbers that it was written in."""
    arrays = {name: tensors[name] for name in ARRAYS if name in tensors}
    if wrong := next((name for name, tensor in arrays.items() if tensor.dtype != ARRAYS[name]), None):
        raise ValueError(f"its {wrong} are {arrays[wrong].dtype}")
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def make_detector(name: str, **options: Any) -> Detector:
    """The detector of that name, not fitted."""
    detector: Detector = registry.make("detectors", name, **options)
    return detector


def name_of(detector: Detector) -> str:
    """The name under which `registry.make` makes such a detector."""
    return registry.name_of("detectors", detector)


def options_of(detector: Any) -> Json:
    """The options with which `registry.make` makes such a detector."""
    return {f.name: getattr(detector, f.name) for f in fields(detector) if f.init}


def code_of(guard: Guard) -> list[str]:
    """The names in a guard's folder that are code, for which it is read with `plugins` alone."""
    settings, detector = guard.classifier.settings, name_of(guard.detector)
    parts = ((settings["backbone"], HARMLESS), (settings["loss"], ()), (detector, ()))
    return [name for name, harmless in parts if is_code(name, harmless)]


def _find(folder: Path) -> tuple[Path, Path]:
    """A guard's description, and the folder that a classifier's path in it starts from and may not leave."""
    check_is_there(folder)
    places = [
        (folder / CONFIG_FILE, folder),
        (folder / "guard" / RUN_FILE, folder),
        (folder / RUN_FILE, folder.resolve().parent),
    ]
    for file, root in places:
        if file.is_file():
            return file, root
    stamp = folder / "guard" / "stage.json"
    written = read_json(stamp) if stamp.is_file() else {}
    summary = written.get("summary") if isinstance(written, dict) else None
    if isinstance(summary, dict) and (reason := summary.get("none")):
        raise StoreError(
            f"{folder} could have no guard: {reason}. Add images, or let it flag more known ones: the "
            "command of the run with another --guard.alpha and --redo changed."
        )
    raise StoreError(
        f"{folder} holds no guard: neither {CONFIG_FILE} nor guard/{RUN_FILE}. A run's is made after its "
        "scores: oodream run … --until guard."
    )


def _inside(root: Path, path: str, file: Path) -> Path:
    """A folder below `root`; a shared run must not reach other files."""
    if not is_within(root / path, root):
        raise StoreError(f"{file}: {path} lies outside {root}.")
    return root / path


def fetched(name: str, **options: Any) -> Path:
    """A copy of a hub repository's JSON and safetensors; `options` are those of `snapshot_download`.

    Raises StoreError where it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **options))
    except Exception as error:  # whatever the hub's client raises
        raise StoreError(f"{HUB}{name} cannot be fetched: {error}") from error
