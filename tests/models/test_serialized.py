"""Networks in exchange formats."""

from __future__ import annotations

import warnings

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from oodream.core.seeding import seeded
from oodream.models.factory import backbone
from oodream.models.serialized import FORMATS, format_of, from_state
from tests.helpers.networks import PlainNetwork, pixels
from tests.helpers.onnx_files import product_and_sum

SIZE = 16
FILES = {
    "onnx": "n.onnx",
    "onnx, one at a time": "single.onnx",
    "exported": "n.pt2",
    "exported, in pairs": "pair.pt2",
    "torchscript": "n.ts",
}


def written(folder, ends: str = "") -> nn.Module:
    """A network in all formats, for batches of any size and of a fixed one; returns the network."""
    with seeded(0, "test"):
        network = PlainNetwork(ends).eval()
    x = pixels(2, SIZE).float() / 255
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, x).save(folder / "n.ts")
        torch.export.save(torch.export.export(network, (x,), dynamic_shapes=dynamic), folder / "n.pt2")
        torch.export.save(torch.export.export(network, (x,)), folder / "pair.pt2")
        for name, example, shapes in (("n", x, ({0: "batch"},)), ("single", x[:1], None)):
            file = folder / f"{name}.onnx"
            torch.onnx.export(network, (example,), file, dynamic_shapes=shapes, dynamo=True, verbose=False)
    return network


@pytest.fixture(scope="module", params=["", "softmax"])
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return folder, written(folder, request.param), request.param


@pytest.mark.parametrize("kind", FILES)
def test_exchange_formats_give_their_networks_logits(files, kind):
    """Whatever batches a file is made for; a softmax at the end is cut off where the layer before it is
    found.
    """
    folder, network, ends = files
    family = kind.partition(",")[0]
    file = folder / FILES[kind]
    assert format_of(file) == family
    read = backbone(f"{family}:{file}", 3, pretrained=True)
    x = pixels(5, SIZE)
    with torch.no_grad():
        z = network.classifier[:-1](network.body(x.float() / 255))
        logits = network.classifier[-1](z)
        output = read(x)
    if family == "torchscript":
        expected, width = (logits.softmax(1) if ends else logits), 0
    else:
        expected, width = logits, 8
        torch.testing.assert_close(output.z_BF, z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(read.head(output.z_BF), output.logits_BC, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits_BC, expected, rtol=1e-4, atol=1e-5)
    assert output.z_BF.shape == (5, width)


@pytest.mark.parametrize("kind", FILES)
def test_a_networks_state_holds_the_file(files, kind):
    folder, *_ = files
    family = kind.partition(",")[0]
    read = backbone(f"{family}:{folder / FILES[kind]}", 0, pretrained=True)
    read.choose(torch.tensor([2, 0]))
    read.mean.fill_(0.25)
    again = from_state(family, "again", {key: tensor.clone() for key, tensor in read.state_dict().items()})
    with torch.no_grad():
        expected, output = read(pixels(3, SIZE)), again(pixels(3, SIZE))
    assert expected.logits_BC.shape == (3, 2)
    assert torch.equal(output.logits_BC, expected.logits_BC)
    assert torch.equal(output.z_BF, expected.z_BF)


def test_the_weights_beside_an_onnx_file_are_part_of_it(tmp_path):
    """PyTorch's exporter puts them there: two such files differ in the weights alone."""
    written(tmp_path)
    model = onnx.load(tmp_path / "n.onnx", load_external_data=False)
    assert any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)
    before = backbone(f"onnx:{tmp_path / 'n.onnx'}", 3, pretrained=True)
    data = tmp_path / "n.onnx.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    after = backbone(f"onnx:{tmp_path / 'n.onnx'}", 3, pretrained=True)
    assert not torch.equal(before.content, after.content)
    data.unlink()
    with pytest.raises(ValueError, match="its weights are not beside it"):
        backbone(f"onnx:{tmp_path / 'n.onnx'}", 3, pretrained=True)


@pytest.mark.parametrize("last", ["conv", "two inputs"])
def test_where_no_last_layer_is_found_there_are_logits_alone(tmp_path, last):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            y = self.conv(x).mean((2, 3))
            return y if last == "conv" else y @ y.T @ y

    x = pixels(2, SIZE).float() / 255
    torch.export.save(torch.export.export(Odd().eval(), (x,)), tmp_path / "odd.pt2")
    read = backbone(f"exported:{tmp_path / 'odd.pt2'}", 3, pretrained=True)
    assert read.head is None
    assert read(pixels(2, SIZE)).z_BF.shape == (2, 0)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16])
def test_pixels_reach_a_graph_as_it_wants_them(tmp_path, dtype, layout):
    read = backbone(f"onnx:{product_and_sum(tmp_path / 'g.onnx', SIZE, dtype, layout)}", 4, pretrained=True)
    x = pixels(5, SIZE)
    scale = 1.0 if dtype == TensorProto.UINT8 else 255.0
    z = x.float().mean((2, 3)) / scale
    weight = torch.arange(12).float().view(3, 4)
    expected = z @ weight + torch.tensor([1.0, 2.0, 3.0, 4.0])
    output = read(x)
    assert read.takes_bytes == (dtype == TensorProto.UINT8)
    assert read.size == SIZE
    torch.testing.assert_close(output.logits_BC, expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(output.z_BF, z, rtol=2e-3, atol=2e-3)


def test_another_number_of_classes_is_refused(files):
    folder, *_ = files
    for family, name in (("onnx", "n.onnx"), ("exported", "n.pt2"), ("torchscript", "n.ts")):
        with pytest.raises(ValueError, match="knows 3 classes, and 4 are asked for"):
            backbone(f"{family}:{folder / name}", 4, pretrained=True)(pixels(5, SIZE))
        with pytest.raises(ValueError, match="can be measured and not be trained"):
            backbone(f"{family}:{folder / name}", 3)


def test_onnx_gives_no_gradients_and_programs_do(files):
    folder, *_ = files
    x = pixels(5, SIZE).float().requires_grad_()
    with pytest.raises(ValueError, match="gives no gradients"):
        backbone(f"onnx:{folder / 'n.onnx'}", 3, pretrained=True)(x)
    backbone(f"exported:{folder / 'n.pt2'}", 3, pretrained=True)(x).logits_BC.sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FORMATS)
def test_what_is_no_such_file_is_refused(tmp_path, family):
    (tmp_path / "text").write_text("no network")
    assert format_of(tmp_path / "text") == ""
    with pytest.raises(ValueError, match="does not exist"):
        backbone(f"{family}:{tmp_path / 'none'}", 3, pretrained=True)
    with pytest.raises(ValueError, match="is no "):
        backbone(f"{family}:{tmp_path / 'text'}", 3, pretrained=True)
