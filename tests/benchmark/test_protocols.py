from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from oodream.benchmark import protocol as protocols
from oodream.benchmark import run as benchmarking
from oodream.benchmark.locate import explain, locate
from oodream.benchmark.protocol import KNOWN, UNKNOWN, load
from oodream.benchmark.read import find
from oodream.benchmark.run import least_accuracy
from oodream.cli.main import COMMANDS, main
from oodream.core.errors import DataError
from oodream.core.files import save_tensors
from oodream.core.registry import make, names
from oodream.core.results import row_from_json
from oodream.data.preprocess import read_image
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone

CLASSES = ("red", "green", "blue")
SIZE = 16
PLACES = {"train": 24, "test": 18, "near": 10, "far": 12}


def picture(kind: int, i: int) -> Image.Image:
    """Noise around one of three colours, or (3) around grey and (4) yellow; the same for the same numbers."""
    colour = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (120, 120, 120), (220, 220, 30)][kind]
    noise = np.random.default_rng((kind, i)).normal(0, 12, (SIZE, SIZE, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def save(image: Image.Image, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def write_list(file: Path, lines: list[str], end: str = "\n") -> str:
    """Writes an image list; its hash as `sha256sum` has it for Unix line ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """OpenOOD's layout with its own small protocol: four sets by lists that are not in the order of the files."""
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
        told = write_list(root / "benchmark_imglist" / "colours" / f"{place}.txt", lines)
        sets.append(
            f'[[sets]]\nname = "{place}-set"\ngroup = "{place}"\nlist = "benchmark_imglist/colours/{place}.txt"\n'
            f'images = "images_classic"\nsha256 = "{told}"\ncount = {count}\nsource = "colours"\n'
        )
    (root / "colours.toml").write_text(
        f'about = "three colours"\nsize = {SIZE}\nclasses = ["red", "green", "blue"]\nleast_accuracy = 0.9\n'
        '[sources.colours]\nurl = "https://example.org/colours"\nfile = "colours.zip"\ninto = "images_classic/colours"\n'
        f'md5 = "{"0" * 32}"\n[sources.lists]\nurl = "https://example.org/lists"\n' + "".join(sets)
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
        solved = torch.linalg.lstsq(
            inputs, torch.nn.functional.one_hot(y, 3).double(), driver="gelsd"
        ).solution.float()
        network.head.weight.copy_(8 * solved[:-1].T)
        network.head.bias.copy_(8 * solved[-1])
    save_tensors(tmp_path / "weights.safetensors", network.state_dict())
    return tmp_path / "weights.safetensors"


def pixels(root: Path, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    files = sorted((root / "images_classic" / "colours" / place).glob("*.png"))
    kinds = [int(file.name.split()[0]) % 3 for file in files]
    return torch.stack(
        [torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f in files]
    ), torch.tensor(kinds)


def evaluate(root: Path, *more: str) -> int:
    return main(
        ["evaluate", "--protocol", str(root / "colours.toml"), "--device", "cpu", "--resamples", "20", *more]
    )


def rows(out: Path) -> dict[tuple[str, str, str], object]:
    found = [row_from_json(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {(row.detector, row.dataset, row.group): row for row in found}


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "colours.toml").read_text()
    assert old in text
    (root / "colours.toml").write_text(text.replace(old, new))


# Shipped protocols -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", protocols.names())
def test_shipped_protocols_are_well_formed(name: str) -> None:
    benchmark = load(name)
    sets = benchmark.sets
    assert len({s.name for s in sets}) == len(sets) >= 6
    assert {s.group for s in sets} <= {*KNOWN, *UNKNOWN}
    assert [s.group for s in sets].count("test") == [s.group for s in sets].count("train") == 1
    for s in sets:
        assert s.count > 0 or (name, s.name) == ("openood-imagenet200", "train")
        assert bool(s.sha256) == bool(s.list) or s.group == "train"
        assert s.builtin or s.source
        assert not re.search(r"(^/|\.\.|\\)", " ".join([s.list, s.images, *s.folders]))
    used = {s.source for s in sets} | ({"lists"} if any(s.list for s in sets) else set())
    assert used - {""} == {*benchmark.sources}
    for source in benchmark.sources.values():
        assert source.url.startswith(("https://", "http://"))
        assert re.fullmatch(r"([0-9a-f]{32})?", source.md5)
    hashes = [s.sha256 for s in sets if s.sha256]
    assert len({*hashes}) == len(hashes)
    assert 0.2 < benchmark.least_accuracy < 1
    assert benchmark.notes


def test_shipped_numbers_add_up() -> None:
    def count(protocol: str, *sets: str) -> int:
        return sum(s.count for s in load(protocol).sets if s.name in sets)

    for name, known in (
        ("cifar10", 10_000),
        ("cifar100", 10_000),
        ("imagenet200", 200 * 50),
        ("imagenet1k", 1000 * 50),
    ):
        assert count(f"openood-{name}", "test", "val") == known
    assert count("openood-imagenet1k", "openimage-o", "val-openimage-o") == 17_632
    assert count("openood-cifar10", "train") == count("dreamood-cifar100", "train") == 50_000
    assert [
        len(load(f"openood-{n}").classes) for n in ("cifar10", "cifar100", "imagenet200", "imagenet1k")
    ] == [10, 100, 200, 1000]
    assert load("dreamood-imagenet100").labels["n01498041"] == 0
    assert (load("openood-cifar10").fpr95, load("dreamood-cifar100").fpr95) == ("fpr95_ood", "fpr95_id")


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", "--protocol", "openood-cifar10", "--root", str(tmp_path), "--model", "nothing"]
    assert main(args) == 2
    told, benchmark = capsys.readouterr().err, load("openood-cifar10")
    assert str(tmp_path) in told
    for s in benchmark.sets:
        if s.group in protocols.MEASURED:
            assert f"{s.name} ({s.group}" in told
            assert s.list in told
            assert s.sha256 in told
            assert benchmark.sources[s.source].url in told
    assert benchmark.sources["lists"].url in told
    assert main([*args, "--dry-run"]) == 0
    assert "val-tin (val-ood, 1,000 images)" in capsys.readouterr().out


def test_only_what_is_missing_is_to_be_got(tmp_path: Path) -> None:
    benchmark = load("openood-cifar10")
    for s in benchmark.sets:
        (tmp_path / benchmark.sources[s.source].into).mkdir(parents=True, exist_ok=True)
    told = explain(locate(benchmark, [tmp_path]), [tmp_path])
    assert benchmark.sources["lists"].url in told
    assert benchmark.sources["tin"].url not in told


# End to end ------------------------------------------------------------------------------------------------------------------


def test_lists_are_evaluated_as_they_say(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(root, "--model", "resnet8", "--weights", str(weights), "--out", str(out)) == 0
    assert "note:" not in capsys.readouterr().err
    network = backbone("resnet8", 3).eval()
    network.load_state_dict(load_file(weights))
    with torch.no_grad():
        logits = {place: network(pixels(root, place)[0]).logits_BC for place in PLACES}
    energy = {place: -torch.logsumexp(x.double(), 1).numpy() for place, x in logits.items()}
    found = rows(out)
    for place in ("near", "far"):
        truth = [0] * PLACES["test"] + [1] * PLACES[place]
        expected = roc_auc_score(truth, np.concatenate([energy["test"], energy[place]]))
        assert found["energy", f"{place}-set", place].auroc == pytest.approx(expected)
        assert found["energy", "mean", place].auroc == pytest.approx(expected)
    accuracy = (logits["test"].argmax(1) == pixels(root, "test")[1]).double().mean().item()
    assert accuracy > 0.9
    assert found["energy", "near-set", "near"].accuracy == pytest.approx(accuracy)
    assert {detector for detector, *_ in found} == {"energy", "msp", "max_logit", "knn", "mahalanobis"}
    table = (out / "results.md").read_text()
    row = found["energy", "near-set", "near"]
    low, high = (100 * end for end in row.intervals["auroc"])
    assert f"| {100 * row.auroc:.1f} [{low:.1f}, {high:.1f}] |" in table
    assert "fpr95_ood" in table
    facts = json.loads((out / "evaluation.json").read_text())
    assert facts["sets"]["far-set"]["images"] == PLACES["far"]
    assert facts["notes"] == []
    kept = {file: file.stat().st_mtime_ns for file in (out / "cache").rglob("*.safetensors")}
    assert evaluate(root, "--model", "resnet8", "--weights", str(weights), "--out", str(out)) == 0
    assert {file: file.stat().st_mtime_ns for file in (out / "cache").rglob("*.safetensors")} == kept
    assert rows(out) == found


def test_all_detectors_and_wrong_images_are_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    save_tensors(tmp_path / "random.safetensors", backbone("resnet8", 3).state_dict())
    out = tmp_path / "out"
    more = (
        "--model",
        "resnet8",
        "--weights",
        str(tmp_path / "random.safetensors"),
        "--detectors",
        "all",
        "--out",
        str(out),
    )
    assert evaluate(root, *more, "--most", "9", "--fit", "6") == 0
    caught = capsys.readouterr()
    assert "something is wrong" in caught.err
    assert "something is wrong" in caught.out
    facts = json.loads((out / "evaluation.json").read_text())
    assert {name: s["images"] for name, s in facts["sets"].items()} == {
        "train-set": 6,
        "test-set": 9,
        "near-set": 9,
        "far-set": 9,
    }
    used = {detector for detector, *_ in rows(out)}
    left = {note.split()[0] for note in facts["notes"] if " is left out: " in note}
    assert {"energy", "odin", "msp"} <= used
    assert "weighted_energy" in left
    assert used | left == {*names("detectors")}


def test_embedded_protocol(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_tensors(tmp_path / "w.safetensors", backbone("resnet8", 8).state_dict())
    out = tmp_path / "out"
    args = [
        "evaluate",
        "--protocol",
        "embedded",
        "--model",
        "resnet8",
        "--weights",
        str(tmp_path / "w.safetensors"),
    ]
    args += [
        "--detectors",
        "energy",
        "knn",
        "--most",
        "40",
        "--resamples",
        "5",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    with pytest.warns(UserWarning, match="something is wrong"):
        measured(args)
    found = rows(out)
    far = [found["knn", name, "far"].auroc for name in ("digits", "letters", "photos", "textures", "noise")]
    assert found["knn", "mean", "far"].auroc == pytest.approx(sum(far) / 5)
    near = [found["knn", name, "near"].auroc for name in ("bag", "ankle-boot")]
    assert found["knn", "mean", "near"].auroc == pytest.approx(sum(near) / 2)


def test_options_are_searched_on_validation_sets_or_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither changes what is measured on, and what was chosen is told."""
    torch.manual_seed(0)
    save_tensors(tmp_path / "w.safetensors", backbone("resnet8", 8).state_dict())
    for i in range(30):
        save(picture(i % 5, i), tmp_path / "strange" / f"{i}.png")
    args = [
        "evaluate",
        "--protocol",
        "embedded",
        "--model",
        "resnet8",
        "--weights",
        str(tmp_path / "w.safetensors"),
    ]
    args += ["--most", "40", "--detectors", "knn", "msp", "--resamples", "5", "--device", "cpu", "--search"]
    for where in ("val", str(tmp_path / "strange")):
        with pytest.warns(UserWarning, match="something is wrong"):
            measured([*args, where, "--out", str(tmp_path / "out")])
        told = capsys.readouterr().out
        assert "of 8 candidates" in told
        assert (
            f"searched on 40 known and {120 if where == 'val' else 30} unknown images of no test set" in told
        )
        assert {name for _, name, _ in rows(tmp_path / "out")}.isdisjoint({"val", "shuffled", "strange"})
    with pytest.raises(DataError, match="no-folder is not a folder"):
        measured([*args, str(tmp_path / "no-folder"), "--out", str(tmp_path / "out")])


def test_a_protocol_without_validation_sets_is_not_searched_on(
    root: Path, weights: Path, tmp_path: Path
) -> None:
    args = [
        "evaluate",
        "--protocol",
        str(root / "colours.toml"),
        "--model",
        "resnet8",
        "--weights",
        str(weights),
    ]
    with pytest.raises(DataError, match="no set of the group val and val-ood to search on"):
        measured([*args, "--root", str(root), "--search", "val", "--out", str(tmp_path / "out")])


def test_a_classifier_that_names_a_plug_in_runs_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "stranger"
    told = {"backbone": "resnet8", "loss": "cross_entropy", "loss_options": {}}
    network, loss = backbone("resnet8", 3), make("losses", "cross_entropy")
    Classifier(network=network, loss=loss, names=CLASSES, size=SIZE, threshold=0.0, told=told).save(folder)
    described = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**described, "loss": "os:system"}))
    args = ["evaluate", "--protocol", str(root / "colours.toml"), "--root", str(root), "--model", str(folder)]
    assert main([*args, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "names the plug-in 'os:system'" in capsys.readouterr().err


def measured(args: list[str]) -> None:
    """`main` without its own way to print warnings."""
    assert COMMANDS[args[0]](args[1:]) == 0


def test_without_a_detector_that_learns_no_training_images_are_needed(
    root: Path, weights: Path, tmp_path: Path
) -> None:
    (root / "benchmark_imglist" / "colours" / "train.txt").unlink()
    common = ("--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "out"), "--detectors")
    assert evaluate(root, *common, "energy", "msp") == 0
    assert evaluate(root, *common, "energy", "knn") == 2


def test_a_classifier_whose_classes_are_in_another_order(root: Path, weights: Path, tmp_path: Path) -> None:
    network = backbone("resnet8", 3)
    network.load_state_dict(load_file(weights))
    order = [2, 0, 1]
    with torch.no_grad():
        network.head.weight.copy_(network.head.weight[order].clone())
        network.head.bias.copy_(network.head.bias[order].clone())
    told = {"backbone": "resnet8", "loss": "cross_entropy", "loss_options": {}}

    def write(folder: str, names: tuple[str, ...]) -> str:
        loss = make("losses", "cross_entropy")
        Classifier(network=network, loss=loss, names=names, size=SIZE, threshold=0.0, told=told).save(
            tmp_path / folder
        )
        return str(tmp_path / folder)

    ours = write("ours", ("Blue", "red", "green"))
    assert evaluate(root, "--model", ours, "--out", str(tmp_path / "a")) == 0
    assert evaluate(root, "--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "b")) == 0
    key = ("mahalanobis", "mean", "far")
    assert rows(tmp_path / "a")[key].accuracy == rows(tmp_path / "b")[key].accuracy > 0.9
    assert rows(tmp_path / "a")[key].auroc == pytest.approx(rows(tmp_path / "b")[key].auroc)
    assert (
        evaluate(root, "--model", write("other", ("blue", "red", "white")), "--out", str(tmp_path / "c")) == 2
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "Give --model"),
        (("--model", "resnet8"), "no published weights"),
        (("--model", "resnet9"), "Did you mean"),
        (("--model", "."), "holds no classifier"),
        (("--model", "resnet8", "--detectors", "enrgy"), "Did you mean 'energy'"),
    ],
)
def test_networks_that_cannot_be_measured(
    root: Path, more: tuple[str, ...], message: str, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(root, *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


class Foreign(torch.nn.Module):
    """As an adapted network of timm says what it was trained on."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.inner, self.body = backbone("resnet8", 3), torch.nn.Identity()
        self.body.pretrained_cfg = {"num_classes": classes, "input_size": (3, size, size)}

    def forward(self, images: torch.Tensor) -> object:
        return self.inner(images)


def test_published_weights_for_other_classes_or_sizes(
    root: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"
    more = ("--model", "timm:foreign", "--detectors", "energy", "--out", str(out))
    monkeypatch.setattr(benchmarking, "backbone", lambda *_, **__: Foreign(1000, SIZE))
    assert evaluate(root, *more) == 2
    assert "knows 1000 classes and colours has 3" in capsys.readouterr().err
    monkeypatch.setattr(benchmarking, "backbone", lambda *_, **__: Foreign(3, 224))
    assert evaluate(root, *more) == 0
    assert "224 pixels wide and sees 16" in capsys.readouterr().err
    assert "224 pixels wide" in (out / "results.md").read_text()


def test_the_least_accuracy() -> None:
    benchmark = load("embedded")
    assert least_accuracy(benchmark) == 0.5
    for classes, expected in ((2, 0.75), (4, 0.625), (10, 0.3), (1000, 0.003)):
        blank = protocols.replace(benchmark, least_accuracy=0.0, classes=tuple(map(str, range(classes))))
        assert least_accuracy(blank) == pytest.approx(expected)


# Lists -----------------------------------------------------------------------------------------------------------------------


def test_sets_are_read_in_the_lists_order(root: Path) -> None:
    sets = find(load(str(root / "colours.toml")), [root])
    group, images = sets["test-set"]
    assert (group, images.size, images.classes, len(images)) == ("test", SIZE, CLASSES, PLACES["test"])
    assert images.labels.tolist() == [i % 3 for i in reversed(range(PLACES["test"]))]
    expected = read_image(root / "images_classic" / "colours" / "test" / "17 of 18.png", SIZE)
    assert torch.equal(images.batch([0])[0], expected)
    assert set(sets["near-set"][1].labels.tolist()) == {-1}
    assert sets["far-set"][1].classes == ()


def test_another_list_warns_and_line_ends_do_not_matter(root: Path, recwarn: pytest.WarningsRecorder) -> None:
    benchmark, file = load(str(root / "colours.toml")), root / "benchmark_imglist" / "colours" / "near.txt"
    lines = file.read_text().splitlines()
    write_list(file, lines, "\r\n")
    find(benchmark, [root])
    assert not recwarn.list
    told = write_list(file, lines[1:])
    ours = next(s.sha256 for s in benchmark.sets if s.name == "near-set")
    with pytest.warns(UserWarning, match="another list than the protocol's") as caught:
        assert len(find(benchmark, [root])["near-set"][1]) == PLACES["near"] - 1
    assert told in str(caught[0].message)
    assert ours in str(caught[0].message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colours/near/a.png", "line 3: .* is no path and label"),
        ("3", "line 3: .* is no path and label"),
        ("", "line 3: .* is no path and label"),
        ("colours/near/a.png one", "line 3: .* is no path and label"),
        ('colours/near/a.png {"class_label": 0}', "line 3: .* is no path and label"),
        ("colours/ne\x00ar/a.png 0", "line 3: .* is no path and label"),
        ("../secret.png -1", "line 3: .* is_main out"),
        ("colours/../../../secret.png -1", "line 3: .* is_main out"),
        ("/etc/hosts -1", "line 3: .* is_main out"),
        ("colours/near/link.png -1", "line 3: .* outside the root"),
        ("colours/linked/secret.png -1", "line 3: .* outside the root"),
        ("colours/near/none.png -1", "1 of the 11 images"),
    ],
)
def test_bad_lines_are_named_and_no_file_outside_is_read(root: Path, line: str, message: str) -> None:
    save(picture(3, 0), root.parent / "elsewhere" / "secret.png")
    (root / "images_classic" / "colours" / "near" / "link.png").symlink_to(
        root.parent / "elsewhere" / "secret.png"
    )
    (root / "images_classic" / "colours" / "linked").symlink_to(root.parent / "elsewhere")
    file = root / "benchmark_imglist" / "colours" / "near.txt"
    lines = file.read_text().splitlines()
    write_list(file, [*lines[:2], line, *lines[2:]])
    with pytest.raises(DataError, match=f"near-set .near, 10 images.: .*{message}"):
        find(load(str(root / "colours.toml")), [root])


def test_a_link_into_another_named_root_may_be_followed(root: Path) -> None:
    place = root / "images_classic" / "colours" / "near"
    place.rename(root.parent / "elsewhere")
    place.symlink_to(root.parent / "elsewhere")
    benchmark = load(str(root / "colours.toml"))
    with pytest.raises(DataError, match="outside the root"):
        find(benchmark, [root])
    assert len(find(benchmark, [root, root.parent / "elsewhere"])["near-set"][1]) == PLACES["near"]


def test_images_may_lie_below_another_root_than_the_lists(root: Path) -> None:
    (root.parent / "pictures").mkdir()
    (root / "images_classic").rename(root.parent / "pictures" / "images_classic")
    sets = find(load(str(root / "colours.toml")), [root, root.parent / "pictures"])
    assert [len(images) for _, images in sets.values()] == [*PLACES.values()]


@pytest.mark.parametrize(("label", "allowed"), [("2", True), ("3", False), ("-1", False)])
def test_labels_of_known_images(root: Path, label: str, allowed: bool) -> None:
    file = root / "benchmark_imglist" / "colours" / "test.txt"
    lines = file.read_text().splitlines()
    write_list(file, [lines[0].rpartition(" ")[0] + f" {label}", *lines[1:]])
    located = locate(load(str(root / "colours.toml")), [root])
    assert bool(located.missing) != allowed
    assert allowed or f"line 1: there is no class {label}" in located.missing[0].reasons[0]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe\n"])
def test_lists_that_are_none(root: Path, data: bytes) -> None:
    (root / "benchmark_imglist" / "colours" / "far.txt").write_bytes(data)
    with pytest.raises(DataError, match=r"is empty|is no list"):
        find(load(str(root / "colours.toml")), [root])


# Folders, the hub, sizes -----------------------------------------------------------------------------------------------------


FOLDERS = """
size = 8
[[sets]]
name = "train"
group = "train"
folders = ["none", "photos/train"]
[[sets]]
name = "test"
group = "test"
folders = ["photos/test"]
count = 6
[[sets]]
name = "street"
group = "far"
folders = ["street"]
"""


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for part, count in (("train", 4), ("test", 3)):
        for kind, name in enumerate(("zebra", "ant")):
            for i in range(count):
                save(picture(kind, i), tmp_path / "photos" / part / name / f"{i}.png")
    save(picture(3, 0), tmp_path / "street" / "deep" / "a.png")
    (tmp_path / "mine.toml").write_text(FOLDERS)
    return tmp_path


def test_own_folders_are_a_protocol(folders: Path) -> None:
    sets = find(load(str(folders / "mine.toml")), [folders])
    train, test, street = (sets[name][1] for name in ("train", "test", "street"))
    assert train.classes == test.classes == ("ant", "zebra")
    assert (train.labels.bincount().tolist(), test.labels.tolist(), street.labels.tolist()) == (
        [4, 4],
        [0] * 3 + [1] * 3,
        [-1],
    )
    assert test.batch([0])[0, 1].float().mean() > 150  # ants are green


def test_folders_with_other_classes_or_counts(folders: Path) -> None:
    save(picture(0, 9), folders / "photos" / "test" / "ant" / "9.png")
    with pytest.warns(UserWarning, match="has 7 images, the protocol 6"):
        find(load(str(folders / "mine.toml")), [folders])
    (folders / "mine.toml").write_text('classes = ["ant", "bee"]\n' + FOLDERS)
    with pytest.raises(
        DataError, match=r"train .*no class folders for bee[\s\S]*test .*no class folders for bee"
    ):
        find(load(str(folders / "mine.toml")), [folders])
    (folders / "mine.toml").write_text("classes = 2\n" + FOLDERS)
    assert load(str(folders / "mine.toml")).classes == ("0", "1")
    with pytest.warns(UserWarning, match="has 7 images"):
        assert find(load(str(folders / "mine.toml")), [folders])["train"][1].labels.bincount().tolist() == [
            4,
            4,
        ]


def test_a_class_list_beside_the_protocol(folders: Path) -> None:
    (folders / "names.toml").write_text('[classes]\nzebra = "striped horse"\nant = "ant"\n')
    (folders / "mine.toml").write_text('classes = "names.toml"\n' + FOLDERS)
    train = find(load(str(folders / "mine.toml")), [folders])["train"][1]
    assert train.classes == ("striped horse", "ant")
    assert train.files[0].endswith("zebra/0.png")


def test_a_list_is_replaced_by_its_folder_with_a_warning(root: Path) -> None:
    (root / "benchmark_imglist" / "colours" / "far.txt").unlink()
    edit(root, 'name = "far-set"', 'name = "far-set"\nfolders = ["images_classic/colours/far"]')
    with pytest.warns(UserWarning, match="stands for the list of far-set"):
        assert len(find(load(str(root / "colours.toml")), [root])["far-set"][1]) == PLACES["far"]


def test_the_middle_is_what_a_crop_keeps(root: Path) -> None:
    benchmark = load(str(root / "colours.toml"))
    whole = find(benchmark, [root], 8, ("test",))["test-set"][1]
    part = find(benchmark, [root], 6, ("test",), crop=0.75)["test-set"][1]
    assert torch.equal(part.batch([3, 1]), whole.batch([3, 1])[..., 1:7, 1:7])
    assert part.size == 6
    for size, crop in ((6, 1.5), (-6, 1.0), (6, -0.5)):
        with pytest.raises(DataError, match="crop a share"):
            find(benchmark, [root], size, ("test",), crop=crop)


def test_a_part_of_every_set_is_the_same_for_the_same_seed(root: Path) -> None:
    benchmark = load(str(root / "colours.toml"))
    parts = [find(benchmark, [root], most={"far": 5}, seed=seed)["far-set"][1].files for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    assert len({*parts[0]}) == 5


def test_sets_of_the_hub_are_read_only_when_asked_for(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "zebra"])}
    )
    rows = {"img": [picture(3, i) for i in range(5)], "label": [0, 1, 0, 1, 0]}
    parts = {part: datasets.Dataset.from_dict(rows, features=features) for part in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(folders / "saved")
    (folders / "mine.toml").write_text(
        FOLDERS + f'[[sets]]\nname = "hubbed"\ngroup = "near"\nhub = "{folders / "saved"}"\n'
    )
    benchmark = load(str(folders / "mine.toml"))
    with pytest.raises(DataError, match=r"hubbed .near.: .*--hub would read"):
        find(benchmark, [folders])
    assert find(benchmark, [folders], hub=True)["hubbed"][1].labels.tolist() == [-1] * 5


# Protocol files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size = 16", "sise = 16", "Did you mean 'size'"),
        ("size = 16", 'size = "16"', "size cannot be '16'"),
        ("size = 16", "size = 16\ncrop = 1.5", "crop a share"),
        ("size = 16", 'size = 16\nfpr95 = "fpr"', "fpr95_id or fpr95_ood"),
        ("size = 16", 'size = 16\nlabels = "x"', "no option 'labels'"),
        ('["red", "green", "blue"]', '["red"]', "classes cannot be"),
        ('["red", "green", "blue"]', '["red", "red"]', "classes cannot be"),
        ('["red", "green", "blue"]', '"cifar11"', "no class list 'cifar11'"),
        ('["red", "green", "blue"]', "1", "classes cannot be 1"),
        ('name = "near-set"', 'name = "far-set"', "Two sets are called 'far-set'"),
        ('name = "near-set"', 'name = "mean"', "cannot be called 'mean'"),
        ('group = "near"', 'group = "nearby"', "'near-set' has group 'nearby'"),
        ('group = "test"', 'group = "val"', "one set of the group 'test', and there are 0"),
        ('images = "images_classic"', 'images = "../images_classic"', "is_main out of the root"),
        ('images = "images_classic"', 'images = "/etc"', "is_main out of the root"),
        ('list = "benchmark_imglist/colours/near.txt"', 'builtin = "nothing"', "no built-in set 'nothing'"),
        ('list = "benchmark_imglist/colours/near.txt"\n', "", "no list, folders, hub or builtin"),
        ("count = 10", "count = -10", "cannot have -10 images"),
        ("count = 10", 'count = "many"', "set 3.count cannot be 'many'"),
        ('source = "colours"', 'source = "colors"', "which is no source here"),
        ('sha256 = "', 'sha256 = "z', "64 hexadecimal digits"),
        ("[[sets]]", "[sets", "cannot be read"),
        (
            '[sources.colours]\nurl = "https://example.org/colours"',
            "[sources]\ncolours = 3\n[other]",
            r"\[sources.NAME\]",
        ),
    ],
)
def test_bad_protocols_say_what_is_wrong(root: Path, old: str, new: str, message: str) -> None:
    edit(root, old, new)
    with pytest.raises(DataError, match=message) as caught:
        load(str(root / "colours.toml"))
    assert "colours.toml" in str(caught.value) or "cifar11" in str(caught.value)


def test_unknown_protocols_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'openood-cifar10'"):
        load("openood-cifra10")
    with pytest.raises(DataError, match=r"none\.toml cannot be read"):
        load(str(tmp_path / "none.toml"))


def test_dry_run_reads_no_picture_and_writes_nothing(
    root: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    import oodream.data.images as image_sets

    monkeypatch.setattr(image_sets, "read_image", lambda *_: pytest.fail("read an image"))
    monkeypatch.chdir(root.parent)
    before = sorted(os.listdir(root.parent))
    assert evaluate(root, "--dry-run") == 0
    assert "near-set (near, 10 images)" in capsys.readouterr().out
    assert sorted(os.listdir(root.parent)) == before
