from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oodream.benchmark.protocol import KNOWN
from oodream.core.tensors import save_tensors
from oodream.models.factory import backbone
from tests.helpers.protocols import FOLDERS, PLACES, SIZE, picture, pixels, save, write_list


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """OpenOOD's layout with a small protocol of its own: four lists, not in the order of the files."""
    root, sets = tmp_path / "data", []
    for place, count in PLACES.items():
        lines = []
        for i in reversed(range(count)):
            kind = i % 3 if place in KNOWN else {"near": 3, "far": 4}[place]
            save(
                picture(kind, i + 100 * len(place)),
                root / "images_classic" / "colours" / place / f"{i} of {count}.png",
            )
            lines.append(f"colours/{place}/{i} of {count}.png {kind if place in KNOWN else -1}")
        sha256 = write_list(root / "benchmark_imglist" / "colours" / f"{place}.txt", lines)
        sets.append(
            f'[[sets]]\nname = "{place}-set"\ngroup = "{place}"\n'
            f'list = "benchmark_imglist/colours/{place}.txt"\nimages = "images_classic"\n'
            f'sha256 = "{sha256}"\ncount = {count}\nsource = "colours"\n'
        )
    (root / "colours.toml").write_text(
        f'about = "three colours"\nsize = {SIZE}\nclasses = ["red", "green", "blue"]\nleast_accuracy = 0.9\n'
        '[sources.colours]\nurl = "https://example.org/colours"\nfile = "colours.zip"\n'
        f'into = "images_classic/colours"\nmd5 = "{"0" * 32}"\n'
        '[sources.lists]\nurl = "https://example.org/lists"\n' + "".join(sets)
    )
    return root


@pytest.fixture
def weights(tmp_path: Path, root: Path) -> Path:
    """A network with random features and a last layer solved for on the training images."""
    torch.manual_seed(0)
    network = backbone("resnet8", 3).eval()
    x, y = pixels(root, "train")
    with torch.no_grad():
        z = network(x).z_BF
        inputs = torch.cat([z, torch.ones(len(z), 1)], 1).double()
        targets = torch.nn.functional.one_hot(y, 3).double()
        solved = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.float()
        network.head.weight.copy_(8 * solved[:-1].T)
        network.head.bias.copy_(8 * solved[-1])
    save_tensors(tmp_path / "weights.safetensors", network.state_dict())
    return tmp_path / "weights.safetensors"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A protocol of class folders beside its file, with the classes zebra and ant."""
    for part, count in (("train", 4), ("test", 3)):
        for kind, name in enumerate(("zebra", "ant")):
            for i in range(count):
                save(picture(kind, i), tmp_path / "photos" / part / name / f"{i}.png")
    save(picture(3, 0), tmp_path / "street" / "deep" / "a.png")
    (tmp_path / "mine.toml").write_text(FOLDERS)
    return tmp_path
