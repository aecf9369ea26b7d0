"""Small networks, pixels and checks for tests of networks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import ResNetConfig, ViTConfig

from oodream.core.seeding import seeded
from oodream.core.tensors import save_tensors
from oodream.data.images import from_array
from oodream.models.factory import backbone

VIT = ViTConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=32,
    patch_size=8,
    num_labels=5,
)
RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)


def pixels(n: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def images(n: int = 24, classes: int = 3):
    """Images whose class is their brightness."""
    y = torch.arange(n) % classes
    return from_array(
        "x",
        pixels(n) // 4 + (60 * y).to(torch.uint8)[:, None, None, None],
        y,
        [f"c{i}" for i in range(classes)],
    )


def made(name: str, classes: int = 3, **more) -> nn.Module:
    """A network of the same initial weights at every call."""
    with seeded(0, "test"):
        return backbone(name, classes, **more)


def close(a: nn.Module, b: nn.Module) -> bool:
    """Whether the trained weights are the same, but for steps of no size."""
    return all(torch.allclose(x, y, atol=1e-20) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all weights and buffers are equal."""
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def check_convention(model: nn.Module, size: int = 32, classes: int = 3) -> None:
    """Logits are the head of the features, both float32."""
    model.eval()
    with torch.no_grad():
        out = model(pixels(2, size))
        assert torch.equal(model.head(out.z_BF), out.logits_BC)
    assert out.logits_BC.shape == (2, classes)
    assert out.z_BF.ndim == 2
    assert out.logits_BC.dtype == out.z_BF.dtype == torch.float32


def saved(path: Path, model: nn.Module) -> Path:
    """Writes the model's weights there."""
    save_tensors(path, model.state_dict())
    return path


class PlainNetwork(nn.Module):
    """Somebody's network, with layers after which a careless split would go wrong."""

    def __init__(self, ends: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
        self.ends = ends

    def forward(self, x):
        y = self.classifier(self.body(x))
        return y.softmax(1) if self.ends == "softmax" else y
