"""Networks in exchange formats."""

from __future__ import annotations

import pytest
import torch

from oodream.core.seeding import seeded
from oodream.models.factory import backbone
from tests.helpers.networks import PlainNetwork, pixels


def test_exchange_formats_give_their_own_logits(tmp_path):
    """Traced by PyTorch, exported to ONNX, and read back by name: the same logits, and no features."""
    with seeded(0, "test"):
        network = PlainNetwork("").eval()
    scripted, onnx = tmp_path / "n.ts", tmp_path / "n.onnx"
    x = pixels(2, 16).float() / 255
    torch.jit.trace(network, x).save(scripted)
    torch.onnx.export(
        network, (x,), onnx, input_names=["x"], dynamic_shapes=({0: "batch"},), dynamo=True, verbose=False
    )
    with torch.no_grad():
        expected = network(pixels(5, 16).float() / 255)
    for name in (f"torchscript:{scripted}", f"onnx:{onnx}"):
        output = backbone(name, 3, pretrained=True)(pixels(5, 16))
        torch.testing.assert_close(output.logits_BC, expected, rtol=1e-4, atol=1e-5)
        assert output.z_BF.shape == (5, 0)
        with pytest.raises(ValueError, match="knows 3 classes, and 4 are asked for"):
            backbone(name, 4, pretrained=True)(pixels(5, 16))
        with pytest.raises(ValueError, match="can be measured and not be trained"):
            backbone(name, 3)
    with pytest.raises(ValueError, match="gives no gradients"):
        backbone(f"onnx:{onnx}", 3, pretrained=True)(pixels(5, 16).float().requires_grad_())


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("no network")
    for family in ("onnx", "torchscript"):
        with pytest.raises(ValueError, match="does not exist"):
            backbone(f"{family}:{tmp_path / 'none'}", 3, pretrained=True)
        with pytest.raises(ValueError, match="is no "):
            backbone(f"{family}:{tmp_path / 'text'}", 3, pretrained=True)
