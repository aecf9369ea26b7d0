"""Other people's image networks behind our convention.

timm's, transformers' and torchvision's networks come by name, any other one by `split`.

Their names, configurations, published weights and errors are dealt with here alone. `factory.backbone` is the
way in by name.
"""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import MissingCode, first_line
from ..core.types import Json, Output
from .serialized import FORMATS, adapter, cut_head

__all__ = [
    "ADAPTERS",
    "Adapted",
    "from_configuration",
    "from_timm",
    "from_torchvision",
    "from_transformers",
    "processor_of",
    "split",
]

SCRATCH_HINT = 'To train without published weights: init "scratch".'
PICKLED = (".bin", ".pt", ".pth")
HEADS = ("classifier", "head", "fc", "score")


class Adapted(nn.Module):
    """Another library's classifier on uint8 images (B, 3, H, W), whose last layer, at `head`, is taken out.

    The input of that layer is z (B, F), so head(z) = logits (B, C) by construction. `mean` and `std` are the
    network's own, for pixels in [0, 1]; they are stored with the weights, so that these are complete. `path`
    is where the layer stood.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, head: str, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body, self.head, self.path = body, _linear(body.get_submodule(head)), head
        parent, _, last = head.rpartition(".")
        setattr(body.get_submodule(parent), last, nn.Identity())
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images_B3HW: Tensor) -> Output:
        z = self.body((images_B3HW.float() / 255 - self.mean) / self.std)
        z = getattr(z, "logits", z).flatten(1)
        return Output(logits_BC=self.head(z), z_BF=z)

    def choose(self, rows_C: Tensor) -> None:
        """Takes those of the present classes for classes that stand at `rows_C`, in this order."""
        self.head = cut_head(self.head, rows_C)

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights as this network calls them; those that its library calls otherwise get their new names."""
        if "head.weight" in weights and any(key.startswith("body.") for key in weights):
            return dict(weights)
        kept = {"mean": self.mean, "std": self.std}
        for key, tensor in weights.items():
            if key.startswith(f"{self.path}."):
                of_head = tensor.flatten(1) if tensor.ndim > 1 else tensor
                kept[f"head{key.removeprefix(self.path)}"] = of_head
            else:
                kept[f"body.{key}"] = tensor
        return kept


def split(
    network: nn.Module, size: int, mean: Sequence[float] = (0.0,) * 3, std: Sequence[float] = (1.0,) * 3
) -> Adapted:
    """A copy of any image classifier that shows its features.

    Its last linear layer is found by watching a forward pass. `network` takes floats (B, 3, size, size),
    pixels in [0, 1] less `mean` over `std`, and returns logits, or an object that has them as `logits`.

    Raises ValueError when its logits come from no linear layer, or are others after the split.
    """
    body = copy.deepcopy(network).eval()
    device = next((p.device for p in body.parameters()), torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=g, dtype=torch.uint8).to(device)
    called: list[tuple[nn.Module, Tensor]] = []
    layers = {module: path for path, module in body.named_modules() if _is_linear(module)}
    hooks = [
        layer.register_forward_hook(lambda layer, _, result: called.append((layer, result)))
        for layer in layers
    ]
    center, spread = (pixels.new_tensor(x, dtype=torch.float32).view(-1, 1, 1) for x in (mean, std))
    with torch.no_grad():
        whole = body((pixels.float() / 255 - center) / spread)
    for hook in hooks:
        hook.remove()
    whole = getattr(whole, "logits", whole)
    if not whole.isfinite().all():
        raise ValueError(f"The logits of this {type(network).__name__} are not finite: look at its weights.")
    ends = [
        layer
        for layer, result in called
        if result.numel() == whole.numel() and torch.equal(result.flatten(1), whole)
    ]
    if not ends or not layers[ends[-1]]:
        raise ValueError(
            f"The logits of this {type(network).__name__} come from no linear layer, "
            "which features and heads need."
        )
    adapted = Adapted(body, layers[ends[-1]], mean, std).to(device).eval()
    with torch.no_grad():
        again = adapted(pixels).logits_BC
    if not torch.allclose(again, whole, rtol=1e-4, atol=1e-5):
        raise ValueError(
            f"Split at {layers[ends[-1]]!r}, this {type(network).__name__} gives other logits than before."
        )
    return adapted


def from_torchvision(name: str, classes: int, pretrained: bool) -> Adapted:
    """torchvision's model `name`, with its default weights if `pretrained`; `classes` 0: as many as these
    have.

    Raises ValueError where there is no torchvision, no such model, no weights or no linear head.
    """
    try:
        from torchvision import models
    except Exception as error:  # beside another torch it fails with other errors than ImportError
        raise MissingCode(
            f"torchvision:{name} needs torchvision, which cannot be imported ({first_line(error)}). "
            "Install the one for your torch."
        ) from error
    known = models.list_models(models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise ValueError(
            f"torchvision has no image classifier {name!r}." + (f" It has {', '.join(near)}." if near else "")
        )
    published = models.get_model_weights(name).DEFAULT
    preprocessing = published.transforms()
    try:
        body = models.get_model(name, weights=published if pretrained else None)
    except Exception as error:  # whatever the download raises
        raise _not_made(f"torchvision:{name}", error, classes, pretrained) from error
    adapted = split(body, preprocessing.crop_size[0], preprocessing.mean, preprocessing.std)
    if classes not in (0, adapted.head.out_features):
        adapted.head = nn.Linear(adapted.head.in_features, classes)
    return adapted.train()


def from_timm(name: str, classes: int, pretrained: bool) -> Adapted:
    """timm's model `name`, with its weights if `pretrained`; `classes` 0: as many as these have.

    Raises ValueError where there is no timm, no such model, no weights or no single linear head.
    """
    try:
        import timm
    except Exception as error:  # timm imports torchvision, which fails with other errors beside another torch
        raise MissingCode(
            f"timm:{name} needs timm, which cannot be imported ({first_line(error)}). Install it: "
            "pip install '.[timm]' in a clone"
        ) from error
    known = timm.list_models()
    if (architecture := name.split(".")[0]) not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        raise ValueError(
            f"timm has no model {architecture!r}." + (f" It has {', '.join(near)}." if near else "")
        )
    try:
        body = timm.create_model(name, pretrained=pretrained, **({"num_classes": classes} if classes else {}))
    except Exception as error:  # whatever the hub's client raises
        raise _not_made(f"timm:{name}", error, classes, pretrained) from error
    heads = [path for path, module in body.named_modules() if module is body.get_classifier()]
    if not heads or not _is_linear(body.get_classifier()):
        raise ValueError(
            f"timm:{name} does not end in one linear layer, which features and detectors need. "
            "Choose another model."
        )
    return Adapted(body, heads[0], body.pretrained_cfg["mean"], body.pretrained_cfg["std"])


def from_transformers(name: str, classes: int, pretrained: bool) -> Adapted:
    """The transformers image classifier in the folder or hub repository `name`; `classes` 0: as many as it
    has.

    With `pretrained` it has its weights, which are read from safetensors.

    No code from the repository is run.

    Raises ValueError where there is no such network, its weights are pickled or missing, or it has no single
    linear head.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    if pretrained:
        _check_folder(Path(name), classes)
    missing: set[str] = set()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        config.num_labels = classes or config.num_labels
        if pretrained:
            body, info = AutoModelForImageClassification.from_pretrained(
                name, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
            missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        else:
            body = AutoModelForImageClassification.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _not_made(f"hf:{name}", error, classes, pretrained) from error
    head = _transformers_head(name, body)
    if lacking := sorted(key for key in missing if not key.startswith(head)):
        lacks = f"{', '.join(lacking[:3])} ({len(lacking)} in all)"
        raise ValueError(f"The weights of hf:{name} lack {lacks}. {_hint(classes, pretrained)}")
    return Adapted(body, head, *_normalisation(name, pretrained))


def from_configuration(name: str, configuration: Json, classes: int) -> Adapted:
    """The transformers image classifier of a configuration, with random weights and a normalisation to be
    loaded.

    Raises ValueError for a configuration of none.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    try:
        config = AutoConfig.for_model(**configuration)
        config.num_labels = classes
        body = AutoModelForImageClassification.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ValueError(f"hf:{name} cannot be made of its configuration: {first_line(error)}") from error
    return Adapted(body, _transformers_head(name, body), (0.0,) * 3, (1.0,) * 3)


def _transformers_head(name: str, body: nn.Module) -> str:
    """Where the one last layer of a network of transformers stands."""
    classes = body.config.num_labels  # type: ignore[union-attr]
    heads = [
        path
        for path, module in body.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == classes
        and any(h in path.split(".")[0] for h in HEADS)
    ]
    if len(heads) != 1:
        raise ValueError(
            f"hf:{name} ends in {len(heads)} linear layers; features and detectors need one. "
            "Choose another model."
        )
    return heads[0]


ADAPTERS: dict[str, Callable[[str, int, bool], nn.Module]] = {
    "timm": from_timm,
    "hf": from_transformers,
    "torchvision": from_torchvision,
    **{family: adapter(family) for family in FORMATS},
}


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _linear(module: nn.Module) -> nn.Linear:
    """A linear layer as it is, a 1 x 1 convolution as the linear layer it is on pooled features."""
    if isinstance(module, nn.Linear):
        return module
    assert isinstance(module, nn.Conv2d)
    linear = nn.Linear(module.in_channels, module.out_channels, bias=module.bias is not None)
    linear.load_state_dict(
        {
            name: weight.flatten(1) if weight.ndim > 1 else weight
            for name, weight in module.state_dict().items()
        }
    )
    return linear


def _not_made(name: str, error: Exception, classes: int, pretrained: bool) -> ValueError:
    return ValueError(f"{name} cannot be made: {first_line(error)} {_hint(classes, pretrained)}".strip())


def _hint(classes: int, pretrained: bool) -> str:
    """What to do where published weights cannot be had: to train a network of so many classes, or, with 0,
    to use it as it is.
    """
    if not pretrained:
        return ""
    return SCRATCH_HINT if classes else "If you have its weights: --weights FILE.safetensors."


def _check_folder(folder: Path, classes: int) -> None:
    """Refuses a folder without weights, or whose weights are pickles."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    if pickles := sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED):
        raise ValueError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code; only safetensors "
            "are read. Convert it where you trust it: AutoModelForImageClassification.from_pretrained("
            f"{str(folder)!r}).save_pretrained('NEW FOLDER')."
        )
    raise ValueError(f"{folder} has no weights (model.safetensors). {_hint(classes, True)}")


def processor_of(name: str) -> Json:
    """What the preprocessor_config.json of a transformers model says; empty without one."""
    from transformers import ImageProcessingMixin

    try:
        config: Json = ImageProcessingMixin.get_image_processor_dict(name)[0]
    except OSError:
        return {}
    return config


def _normalisation(name: str, warn: bool) -> tuple[list[float], list[float]]:
    """Mean and standard deviation from preprocessor_config.json; without one 0.5, and a warning if asked."""
    config = processor_of(name)
    if not config and warn:
        warnings.warn(
            f"hf:{name} has no preprocessor_config.json: pixels are normalised with mean and std 0.5.",
            stacklevel=2,
        )
    if not config.get("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return config.get("image_mean") or [0.5] * 3, config.get("image_std") or [0.5] * 3
