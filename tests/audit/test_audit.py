from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sklearn.metrics import roc_auc_score

from oodream.audit import audit as module
from oodream.audit.audit import audit
from oodream.audit.control import controlled
from oodream.audit.duplicates import duplicates, look, nearest_duplicates
from oodream.audit.finding import Audit, from_json, percent, to_json
from oodream.audit.names import named
from oodream.audit.shortcuts import discriminability, jpeg_quality, pixel_statistics, separated  # fmt: skip
from oodream.cli.main import main
from oodream.config import Config, EvaluateConfig
from oodream.core.errors import DataError
from oodream.core.results import Row, row_to_json
from oodream.data.folders import load_ood
from oodream.data.images import Images, from_array
from oodream.data.inputs import DataInputs
from oodream.report.content import Checked, Report
from oodream.report.page import report
from oodream.run.audit import audited, lines, of_folders, of_run


def pictures(n: int, seed: int, size: int = 32, detail: int = 6) -> list[Image.Image]:
    """Different pictures of coloured clouds."""
    g = np.random.default_rng(seed)
    grids = (Image.fromarray(g.integers(0, 256, (detail, detail, 3), dtype=np.uint8)) for _ in range(n))
    return [grid.resize((size, size), Image.Resampling.BICUBIC) for grid in grids]


def images(
    found: list[Image.Image],
    name: str = "set",
    labels: list[int] | None = None,
    classes: tuple[str, ...] = (),
) -> Images:
    x = torch.from_numpy(np.stack([np.asarray(p) for p in found])).permute(0, 3, 1, 2)
    return from_array(name, x, torch.tensor(labels or [0] * len(found)), classes)


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resized(picture: Image.Image, share: float) -> Image.Image:
    side = round(share * picture.width)
    return picture.resize((side, side), Image.Resampling.BILINEAR).resize(
        picture.size, Image.Resampling.BICUBIC
    )


def shifted(picture: Image.Image, dx: int, dy: int) -> Image.Image:
    x = np.pad(np.asarray(picture), ((1, 1), (1, 1), (0, 0)), mode="edge")
    return Image.fromarray(x[1 + dy : 1 + dy + picture.height, 1 + dx : 1 + dx + picture.width])


COPIES = {
    "equal": lambda p: p,
    "JPEG": lambda p: compressed(p, 75),
    "smaller": lambda p: resized(p, 0.6),
    "to the right": lambda p: shifted(p, -1, 0),
    "down and left": lambda p: shifted(p, 1, 1),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
}


@pytest.mark.parametrize("size", [32, 64, 100])
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_are_found_and_others_are_not(copy, size):
    train, strangers = pictures(60, 0, size), pictures(30, 1, size)
    row_N, apart_N = nearest_duplicates(
        look(images(train)), look(images([copy(p) for p in train[20:40]] + strangers))
    )
    assert row_N[:20].tolist() == [*range(20, 40)]
    assert row_N[20:].tolist() == [-1] * 30
    assert ((apart_N[:20] == 0) == (copy is COPIES["equal"])).all()


def test_other_pictures_are_no_copies():
    picture = pictures(1, 0)[0]
    others = {
        "mirrored": picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "twice as contrasty": Image.fromarray(np.asarray(picture) // 2),
        "in other colours": Image.fromarray(np.asarray(picture)[:, :, [1, 2, 0]]),
        "moved by a quarter": Image.fromarray(np.roll(np.asarray(picture), 8, axis=1)),
    }
    row_N, _ = nearest_duplicates(look(images([picture] * 2)), look(images([*others.values()])))
    assert dict(zip(others, row_N.tolist(), strict=True)) == dict.fromkeys(others, -1)


def test_equal_pictures_are_those_that_a_dictionary_finds():
    x = (
        torch.randint(0, 2, (400, 3, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        * 255
    )
    x = torch.cat(
        [
            x.expand(-1, -1, 8, 8),
            torch.randint(0, 3, (400, 3, 8, 8), generator=torch.Generator().manual_seed(1)),
        ]
    ).byte()
    first: dict[bytes, int] = {}
    expected = []
    for i, row in enumerate(x):
        earlier = first.setdefault(row.numpy().tobytes(), i)
        expected.append(earlier if earlier < i else -1)
    row_N, _ = nearest_duplicates(*[look(from_array("x", x, torch.zeros(800), ()))] * 2)
    assert row_N.tolist() == expected
    assert sum(row >= 0 for row in expected) == 392


def test_plain_pictures_are_copies_only_when_they_are_equal():
    plain = [Image.new("RGB", (32, 32), (v, v, v)) for v in range(0, 256, 5)]
    seen = look(images(plain))
    assert (nearest_duplicates(seen, seen)[0] == -1).all()
    row_N, _ = nearest_duplicates(
        seen, look(images([*plain[3:5], Image.new("RGB", (32, 32), (254, 255, 255))]))
    )
    assert row_N.tolist() == [3, 4, -1]


def test_what_copies_mean_depends_on_the_sets():
    train, test, odd, drawn = (pictures(50, seed) for seed in range(4))
    test[0], odd[0], odd[1], odd[2], drawn[0], drawn[1] = (
        train[0],
        train[1],
        test[1],
        drawn[5],
        train[2],
        train[2],
    )
    sets = {
        "train": ("train", images(train)), "test": ("test", images(test)), "odd": ("near", images(odd)),
        "drawn": ("outliers", images(drawn)), "again": ("control", images([compressed(p, 90) for p in test])),
        "other": ("far", images([odd[0], *pictures(150, 9)])),
    }  # fmt: skip
    found = {f.sets: f for f in duplicates(sets) if f.kind == "duplicates"}
    counts = {names: (f.count, f.severity) for names, f in found.items() if f.count}
    assert counts == {
        ("train", "test"): (1, "problem"), ("train", "odd"): (1, "problem"), ("test", "odd"): (1, "problem"),
        ("drawn", "odd"): (1, "problem"), ("train", "drawn"): (2, "problem"), ("drawn",): (1, "warning"),
        ("train", "other"): (1, "warning"),
    }  # fmt: skip
    assert found["train", "odd"].examples[0] | {"apart": 0} == {
        "sets": ["train", "odd"], "rows": [1, 0], "files": ["set[1]", "set[0]"], "apart": 0,
    }  # fmt: skip
    assert "learns them as known" in found["train", "odd"].message
    assert (
        "1 of 50 pictures of test (2.0\u00a0%) show the same as one of train, all to the last bit"
        in found["train", "test"].message
    )


def test_equal_pictures_with_different_labels_are_found():
    train = pictures(50, 0)
    train[10], train[11], train[20] = train[0], train[0], train[1]
    labels = [0] * 50
    labels[10], labels[30] = 1, 1
    sets = {
        "train": ("train", images(train, "train", labels, ("cat", "dog"))),
        "test": ("test", images(pictures(5, 1))),
    }
    (found,) = (f for f in duplicates(sets) if f.kind == "labels")
    assert (found.count, found.share, found.severity) == (3, 0.06, "problem")
    assert {*found.examples[0]["labels"]} == {"cat", "dog"}
    assert {*found.examples[0]["rows"]} <= {0, 10, 11}


# Traces


def photographs(n: int, seed: int) -> list[Image.Image]:
    """Pictures with grain, as cameras make them."""
    g = np.random.default_rng(seed)
    grain = g.normal(0, 6, (n, 32, 32, 3))
    return [
        Image.fromarray((np.asarray(p) + e).clip(0, 255).astype(np.uint8))
        for p, e in zip(pictures(n, seed), grain, strict=True)
    ]


def saved(folder: Path, found: list[Image.Image], suffix: str = "png", **options: int) -> Images:
    folder.mkdir(parents=True)
    for i, picture in enumerate(found):
        picture.save(folder / f"{i:03}.{suffix}", **options)
    return load_ood(folder, 32)


def test_a_set_of_other_files_is_a_problem_and_a_split_of_one_source_is_not(tmp_path):
    everything = photographs(180, 0)
    sets = {
        "test": ("test", saved(tmp_path / "test", everything[:60])),
        "split": ("near", saved(tmp_path / "split", everything[60:120])),
        "jpeg": ("near", saved(tmp_path / "jpeg", everything[120:], "jpg", quality=90)),
        "drawn": ("outliers", saved(tmp_path / "drawn", everything[120:150], "jpg")),
        "few": ("far", saved(tmp_path / "few", everything[:5], "jpg")),
    }  # fmt: skip
    found = {(f.kind, f.sets[-1]): f for f in separated(sets, 0)}
    assert {name for _, name in found} == {"split", "jpeg", "drawn"}
    assert found["files", "jpeg"].severity == "problem"
    assert found["files", "jpeg"].share == 1
    assert found["files", "drawn"].severity == "warning"
    assert {s["statistic"]: s["auroc"] for s in found["files", "jpeg"].examples} | {"bytes per pixel": 1, "mode": 0.5} == {
        "together": 1, "format": 1, "JPEG quality": 1, "mode": 0.5, "width": 0.5, "height": 0.5, "bytes per pixel": 1,
    }  # fmt: skip
    assert "antialiased" in found["files", "jpeg"].message
    assert [found[kind, "split"].severity for kind in ("files", "pixels")] == ["fine", "fine"]
    assert found["pixels", "split"].share < 0.65


@pytest.mark.parametrize(
    ("make", "statistic"),
    [
        (lambda p: compressed(p, 20), "blockiness"),
        (lambda p: resized(p, 0.5), "finest detail"),
        (lambda p: p.convert("L").convert("RGB"), "colour"),
    ],
)
def test_pixels_tell_how_pictures_were_made(make, statistic):
    test, other = images(photographs(150, 0)), images([make(p) for p in photographs(150, 1)])
    (found,) = separated({"test": ("test", test), "other": ("far", other)}, 0)
    assert (found.kind, found.severity) == ("pixels", "warning")
    assert {s["statistic"]: s["auroc"] for s in found.examples}[statistic] > 0.95
    (split,) = separated({"test": ("test", test), "other": ("far", images(photographs(150, 2)))}, 0)
    assert split.share < 0.6


def test_pixel_statistics_of_made_pictures():
    y, x = np.mgrid[:32, :32]
    made = {
        "checkers": (x + y) % 2 * 255, "slope": 4 * x + 3 * y, "blocks": (x // 8 + y // 8) % 2 * 200,
        "moved blocks": ((x + 4) // 8 + (y + 4) // 8) % 2 * 200, "plain": 0 * x + 90,
    }  # fmt: skip
    x_B3HW = torch.from_numpy(np.stack([*made.values()])).byte()[:, None].repeat(1, 3, 1, 1)
    found = {
        key: dict(zip(made, values.tolist(), strict=True)) for key, values in pixel_statistics(x_B3HW).items()
    }
    assert 10 ** found["finest detail"]["checkers"] == pytest.approx(1, abs=0.05)
    assert 10 ** found["fine detail"]["slope"] < 0.01
    assert found["blockiness"]["blocks"] > 3
    assert found["blockiness"]["moved blocks"] < -1
    assert found["blockiness"]["plain"] == 0
    assert not any(found["colour"].values())
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32)
    assert pixel_statistics(red)["colour"].tolist() == [1]


@pytest.mark.parametrize("quality", [25, 50, 75, 90, 95])
def test_jpeg_quality_is_the_one_it_was_saved_with(quality):
    file = io.BytesIO()
    pictures(1, 0)[0].save(file, "JPEG", quality=quality)
    assert jpeg_quality(Image.open(file).quantization) == pytest.approx(quality, abs=1.5)
    assert jpeg_quality(None) == 100


def test_told_apart_is_what_scikit_learn_says():
    g = np.random.default_rng(0)
    test = {
        "a": g.normal(0, 1, 300),
        "b": g.normal(0, 1, 300),
        "wide": g.normal(0, 1, 300),
        "text": np.array(["x"] * 300),
    }
    other = {
        "a": g.normal(-1, 1, 200),
        "b": g.normal(0, 1, 200),
        "wide": g.normal(0, 1, 200),
        "text": np.array(["x", "y"] * 100),
    }
    found, (low, high) = discriminability(test, other, 0)
    truth = np.repeat([0, 1], [300, 200])
    for key in ("a", "b"):
        expected = roc_auc_score(truth, np.concatenate([test[key], other[key]]))
        assert found[key] == pytest.approx(max(expected, 1 - expected))
    assert found["text"] == 0.75
    assert low < found["together"] < high
    assert found["together"] > found["a"]


def test_told_apart_sees_what_lies_on_both_sides_and_nothing_in_noise():
    g = np.random.default_rng(0)
    middle, sides, alike = (
        g.normal(0, 0.2, 200),
        g.choice([-2, 2], 200) + g.normal(0, 0.2, 200),
        g.normal(0, 0.2, 200),
    )
    assert discriminability({"width": middle}, {"width": sides}, 0)[0]["together"] > 0.99
    found, (low, _) = discriminability({"width": middle}, {"width": alike}, 0)
    assert found["together"] < 0.58
    assert low < 0.5


# Names


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("Coats/1.png", {"coat"}), ("red_coat/1.png", {"coat"}), ("all/COAT-17.jpg", {"coat"}), ("coatings/1.png", set()),
        ("dresses/1.png", {"dress"}), ("address/1.png", set()), ("horses/a.png", {"horse"}), ("buses/a.png", {"bus"}),
        ("flies/a.png", {"fly"}), ("polo-shirts/a.png", {"polo shirt"}), ("PoloShirt/a.png", {"polo shirt"}),
        ("shirt/a.png", {"shirt"}), ("train/a.png", set()), ("steam-train/a.png", {"train"}), ("kite bird/a.png", {"kite"}),
        ("n01440764/a.png", {"tench"}), ("tinca/a.png", {"tench"}), ("b/3.png", set()), ("Fliegen/a.png", set()),
    ],
)  # fmt: skip
def test_known_classes_are_found_by_name(file, expected):
    classes = (
        "coat",
        "dress",
        "horse",
        "bus",
        "fly",
        "polo shirt",
        "shirt",
        "train",
        "kite",
        "tench, tinca",
        "b",
        "3",
    )
    x = from_array("odd", torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.full((2,), -1), ())
    odd = Images(**{**vars(x), "files": (f"/data/coat/odd/{file}", "/data/coat/odd/zzz/0.png")})
    words = {"kite": ["kite bird"], "tench, tinca": ["n01440764"]}
    (found,) = named({"odd": ("near", odd)}, classes, words)
    assert {hit["class"].partition(",")[0] for hit in found.examples} == expected
    assert found.count == bool(expected)
    assert found.severity == ("warning" if expected else "fine")
    (whole,) = named({"coats": ("far", odd)}, classes, words)
    assert whole.count == 2


# The control, the whole


def row(classifier: str, auroc: float, half: float, seed: int = 0) -> Row:
    return Row(
        classifier=classifier, detector="energy", dataset="reconstructed", group="control", seed=seed, auroc=auroc, aupr_out=0.5,
        aupr_in=0.5, fpr95_id=0.95, fpr95_ood=0.95, accuracy=0.9, n_id=1000, n_ood=1000, autc=0.5, oscr=0.5,
        calibration_error=0.1, misclassification_auroc=None,
        intervals={"auroc": (auroc - half, auroc + half)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("auroc", "half", "severity"),
    [
        (0.5, 0.02, "fine"),
        (0.53, 0.01, "fine"),
        (0.57, 0.02, "warning"),
        (0.38, 0.02, "problem"),
        (0.65, 0.2, "fine"),
    ],
)
def test_the_control_is_judged_by_its_distance_and_interval(auroc, half, severity):
    (found,) = controlled([row("dream", auroc - 0.01, half), row("dream", auroc + 0.01, half, seed=1)])
    assert found.severity == severity
    assert found.share == pytest.approx(auroc)
    assert ("sign of the known" in found.message) == (severity == "problem")
    assert percent(auroc - half) in found.message


def test_bad_sets_are_refused():
    good = images(pictures(3, 0))
    with pytest.raises(ValueError, match="no images in odd"):
        audit({"test": ("test", good), "odd": ("far", good.subset(torch.arange(0)))}, ())
    with pytest.raises(ValueError, match="group 'test'"):
        audit({"train": ("train", good)}, ())
    with pytest.raises(ValueError, match="not 'faar'"):
        audit({"test": ("test", good), "odd": ("faar", good)}, ())
    with pytest.raises(DataError, match="different sizes"):
        audit({"test": ("test", good), "odd": ("far", images(pictures(3, 0, 64)))}, ())


@pytest.fixture(scope="module")
def embedded() -> Audit:
    return audited(DataInputs(Config(evaluate=EvaluateConfig(n_far=100))))


def test_what_the_embedded_sets_are_guilty_of(embedded):
    assert embedded["problem"] == []
    shared = {f.sets: f.count for f in embedded.findings if f.kind == "duplicates" and len(f.sets) == 2}
    assert shared == {("ID/train", "ID/test"): 3}
    pixels = {f.sets[-1]: f.severity for f in embedded.findings if f.kind == "pixels"}
    assert pixels == dict.fromkeys(("digits", "photos", "textures", "noise"), "warning") | {
        "near": "fine",
        "letters": "fine",
    }
    assert not [f for f in embedded["warning"] if f.kind in ("names", "labels", "files")]


def test_an_audit_survives_json_and_repeats_itself(embedded):
    assert from_json(json.loads(json.dumps(to_json(embedded)))) == embedded
    assert [f.severity for f in embedded.findings] == sorted(
        (f.severity for f in embedded.findings), key=module.SEVERITIES.index
    )
    assert [*lines(embedded)][-1] == f"Problems: 0. Warnings: {len(embedded['warning'])}."


# Folders and runs


@pytest.fixture
def folders(tmp_path) -> Path:
    everything = photographs(140, 5)
    for k, name in enumerate(("coat", "shoe")):
        saved(tmp_path / "data" / "train" / name, everything[k * 20 : k * 20 + 20])
        saved(tmp_path / "data" / "test" / name, everything[40 + k * 20 : 60 + k * 20])
    saved(tmp_path / "odd", everything[80:110])
    return tmp_path


def test_audit_of_folders_from_the_command_line(folders, capsys):
    args = ["audit", "--data", str(folders / "data"), "--ood", f"near={folders / 'odd'}", "--seed", "1"]
    assert main(args) == 0
    assert "Problems: 0. Warnings: 0." in capsys.readouterr().out
    compressed(Image.open(folders / "data/train/coat/003.png"), 80).save(folders / "odd" / "shoes-1.jpg")
    assert main(args) == 1
    told = capsys.readouterr().out
    assert told.startswith("problem  duplicates: ID/train, odd")
    assert "warning  names: odd" in told
    assert main([*args, "--json"]) == 1
    done = from_json(json.loads(capsys.readouterr().out))
    assert done == of_folders(Config(data=str(folders / "data"), ood=(f"near={folders / 'odd'}",), seed=1))
    assert [Path(file).name for file in done["problem"][0].examples[0]["files"]] == ["003.png", "shoes-1.jpg"]
    assert {*done.sets.values()} == {"train", "test", "near"}


def test_audit_refuses_what_it_cannot_read(folders, capsys):
    for args, message in (
        ([], "Audit what?"), ([str(folders), "--data", "x"], "Audit what?"), ([str(folders)], "is not a run folder"),
        (["--data", str(folders / "none")], "is not a folder"),
    ):  # fmt: skip
        assert main(["audit", *args]) == 2
        assert message in capsys.readouterr().err


def test_audit_of_a_run_takes_what_the_run_has_made(folders):
    config = {
        "data": str(folders / "data"),
        "ood": [str(folders / "odd")],
        "evaluate": {"n_far": 30, "detectors": ["energy"]},
    }
    run = folders / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"config": config}))
    assert {*of_run(run).sets.values()} == {"train", "test", "far"}

    drawn = run / "images" / "imagined"
    saved(drawn / "coat-0", [Image.open(folders / "data/train/coat/004.png"), *pictures(30, 7)])
    told = [
        {"file_name": f"coat-0/{i:03}.png", "row": i, "kind": "outlier", "class": "coat"} for i in range(31)
    ]
    (drawn / "metadata.jsonl").write_text("\n".join(map(json.dumps, told)))
    (run / "results.jsonl").write_text(
        row_to_json(row("dream", 0.7, 0.01)) + "\n" + row_to_json(row("plain", 0.5, 0.01))
    )
    done = of_run(run)
    assert done.sets["run/imagined"] == "outliers"
    assert [(f.kind, f.sets) for f in done["problem"]] == [
        ("duplicates", ("ID/train", "run/imagined")),
        ("control", ("dream",)),
    ]

    from oodream.core.files import save_tensors

    save_tensors(run / "filter" / "kept.safetensors", {"kept": torch.tensor([False, *[True] * 30])})
    assert [f.kind for f in of_run(run)["problem"]] == ["control"]


def test_the_report_shows_the_audit():
    hostile = "<script>alert(1)</script>"
    a, b = (torch.full((3, 32, 32), v, dtype=torch.uint8) for v in (10, 200))
    content = Report(
        title="t", preset="p", created="c", command="c", classes=("a",), classifiers={"plain": "x"}
    )
    assert 'id="audit"' not in report(content)
    page = report(Report(**{**vars(content), "audit": [
        Checked(kind="duplicates", sets=("train", hostile), severity="problem", message=hostile, pairs=[(a, b, hostile)]),
        Checked(kind="pixels", sets=("test", "odd"), severity="warning", message="m", aurocs={"together": 0.991, "colour": 0.5}),
        Checked(kind="names", sets=("odd",), severity="fine", message="no class is named"),
    ]}))  # fmt: skip
    section = page[page.index('<section id="audit">') : page.index('<section id="made">')]
    assert "1 problem, 1 warning, 1 fine." in section
    assert section.count("<img") == 2
    assert 'href="#audit"' in page
    assert hostile not in page
    assert "99.1\u00a0%" in section
    assert "width:98.2%" in section
    assert section.index("no class is named") > section.index("<h3>Fine</h3>")
