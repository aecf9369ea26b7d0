"""Every command, option, name and snippet in the documentation is run, or at least understood by the program
that it is for.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn

from oodream import Guard, Run
from oodream.cli import reference
from oodream.cli.console import parse
from oodream.cli.main import COMMANDS, main
from oodream.config import Config
from oodream.core import registry
from oodream.core.options import overlay
from oodream.core.tensors import save_tensors
from oodream.data.sets import SETS
from oodream.run.job import Job
from oodream.run.layout import Layout
from oodream.run.plan import Plan
from oodream.run.runner import CHANGED
from tests.golden.parity import table
from tests.helpers.hub import FolderHub
from tests.helpers.runs import RUN, command

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG", "world/README")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "src/oodream/assets/decoder/README.md",
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"^ *```(\w*)([^\n]*)\n(.*?)^ *```", re.S | re.M)
INLINE = re.compile(r"`([^`]+)`")
KNOWN = ("oodream", "make", "pip", "python", "torchrun", "cd", "git clone", "apt-get install", "pytest")
PLACEHOLDERS = {
    "--protocol NAME": "--protocol embedded",
    "--preset NAME": "--preset demo",
    "--arms NAME": "--arms oal",
}
CLUSTERS = ("ray", "pyspark")  # packages that only slow tests start
FLAGS = {flag for name in reference.COMMANDS for flag in reference.flags(name)}


def blocks(*languages: str) -> list[tuple[str, str, str]]:
    """(page, what stands behind the language, code)"""
    return [
        (page, info.strip(), code)
        for page, text in TEXTS.items()
        for language, info, code in BLOCK.findall(text)
        if language in languages
    ]


def inline(page: str) -> list[str]:
    """The code in a page's sentences and tables; of a page of renamed options what they are called today."""
    text = BLOCK.sub("", TEXTS[page])
    if page == "CHANGELOG.md":
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.M)
    return [re.sub(r"\s+", " ", code).strip() for code in INLINE.findall(text)]


LINES = [
    (page, line.partition(" #")[0].strip())
    for page, _, code in blocks("", "bash", "sh")
    for line in code.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
INLINE_LINES = [
    (page, code)
    for page in TEXTS
    for code in inline(page)
    if page != "CHANGELOG.md"
    and code.startswith(tuple(f"{word} " for word in KNOWN))
    and len(code.split()) > 2
    and not re.search("…|COMMAND", code)
]


def starting(*words: str) -> pytest.MarkDecorator:
    """The commands that start so, in blocks and in sentences."""
    found = [pair for pair in dict.fromkeys([*LINES, *INLINE_LINES]) if pair[1].startswith(words)]
    return pytest.mark.parametrize(("page", "line"), found)


# Commands


def test_no_other_kind_of_command():
    """A block without a language holds commands; whatever else it shows is fenced as ```text."""
    assert [line for _, line in LINES if not line.startswith(tuple(f"{word} " for word in KNOWN))] == []


@starting("make ")
def test_make_targets_exist(page, line):
    subprocess.run(["make", "--dry-run", *line.split()[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory with the files that commands name, and none of the folders."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    for text in TEXTS.values():
        for name, content in re.findall(r"`(\w+\.json)`\s+holding\s+`(\{.*?\})`", text, re.S):
            (tmp_path / name).write_text(json.dumps(json.loads(content)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@starting("oodream ")
def test_oodream_commands_are_understood(page, line, workplace, capsys, no_preview):
    for general, one in PLACEHOLDERS.items():
        line = line.replace(general, one)
    name, *args = shlex.split(line)[1:]
    assert name in COMMANDS
    if name in ("guard", "evaluate") and "://" in line:
        assert parse(reference.COMMANDS[name], name, args)  # the bucket would be asked
        return
    reads_own = name in ("audit", "evaluate") and "--data" in args
    reads_run = name == "evaluate" and not {"--data", "--protocol"} & {*args}
    if name in ("run", "demo", "compare", "evaluate", "guard") and not (reads_own or reads_run):
        assert main([name, *args, *([] if "--dry-run" in args else ["--dry-run"])]) == 0
        return
    refusals = {
        "decode": "There is no folder",
        "audit": "There is no folder",
        "evaluate": "There is no folder",
        "score": "does not exist" if ".onnx" in line else "There is no folder",
        "export": "There is no folder",
        "serve": "does not exist" if ".onnx" in line else "There is no folder",
        "studio": "There is no folder",
        "fit-decoder": f"{args[0] if args else ''} is not a folder",
    }
    if name not in refusals or "--help" in args:
        assert main([name, *args]) == 0
    elif reads_own and args[args.index("--data") + 1] in SETS:
        assert parse(reference.COMMANDS[name], name, args)  # it would be audited
    elif any("://" in arg for arg in args):
        assert parse(reference.COMMANDS[name], name, args)  # the bucket would be asked
    elif reads_own:
        assert main([name, *args]) == 2
        assert "is not a folder" in capsys.readouterr().err
    else:
        assert main([name, *args]) == 2
        assert refusals[name] in capsys.readouterr().err


@starting("torchrun ")
def test_launched_commands_are_understood(page, line, no_preview):
    launch, _, own = line.partition(" -- oodream ")
    assert re.fullmatch(r"torchrun (--[a-z-]+ \w+ )+-m", launch)
    assert main([*shlex.split(own), "--dry-run"]) == 0


@starting("python ")
def test_scripts_and_modules_exist(page, line):
    first, *more = line.split()[1:]
    if first == "-m":
        assert importlib.util.find_spec(more[0])
    else:
        assert (ROOT / first).is_file()


@starting("pytest ")
def test_named_tests_exist(page, line):
    assert (ROOT / line.split()[-1]).is_file()


@pytest.mark.parametrize("page", TEXTS)
def test_options_in_sentences_exist(page):
    """Every `--option` belongs to a command; only tables beside published code name that code's own."""
    foreign = {
        "docs/faithfulness.md": {"--plms", "--score", "--gaussian_scale"},
        "docs/capabilities-dreamood.md": {
            "--score",
            "--add_class",
            "--gaussian_scale",
            "--inlier",
            "--shift",
        },
    }
    ours = [code for code in inline(page) if code.startswith(("--", "oodream "))]
    words = (word.partition("=")[0] for code in ours for word in code.split())
    named = {word for word in words if word.startswith("--") and "…" not in word}
    assert named - FLAGS - foreign.get(page, set()) - {"--help", "--section.option"} == set()


@pytest.mark.parametrize("page", TEXTS)
def test_names_of_python_in_sentences_exist(page):
    for code in inline(page):
        for name in re.findall(r"(?<![\w/.-])oodream(?:\.[A-Za-z_]\w*)+", code):
            value, path = importlib.import_module("oodream"), "oodream"
            for part in name.split(".")[1:]:
                path = f"{path}.{part}"
                value = getattr(value, part, None) or importlib.import_module(path)


# Snippets


@pytest.fixture(scope="session")
def photos_run(finished, shapes, tiny_pipeline, tmp_path_factory) -> Path:
    """The finished run, with a guard that promises as much as twelve test images can."""
    run = shutil.copytree(finished, tmp_path_factory.mktemp("documented") / "photos")
    guard = ("--guard.alpha", "0.3", "--redo", "changed")
    assert main(command(shapes, tiny_pipeline, run, *guard)) == 0
    return run


@pytest.fixture
def desk(shapes, photos_run, tmp_path, monkeypatch) -> Path:
    """A working directory with photos, a folder of strange images and a finished run."""
    for folder in ("photos", "strange"):
        shutil.copytree(shapes, tmp_path / folder)
    shutil.copytree(photos_run, tmp_path / "runs" / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The package that docs/extending.md writes, importable."""
    files = {info.partition("=")[2]: code for _, info, code in blocks("python") if info.startswith("file=")}
    assert {Path(name).parts[0] for name in files} == {"mine"}
    for name, code in files.items():
        (tmp_path / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "packages" / name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield files
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def snippets(*needs: str) -> pytest.MarkDecorator:
    """The snippets behind whose language stands nothing, or `needs=` one of these."""
    found = [(page, info, code) for page, info, code in blocks("python") if not info.startswith("file=")]
    wanted = [f"needs={name}" for name in needs] or [""]
    assert {info for _, info, _ in found} <= {"", *(f"needs={name}" for name in ("mine", "hub", *CLUSTERS))}
    chosen = [
        pytest.param(page, info, code, id=f"{page}-{info}") for page, info, code in found if info in wanted
    ]
    return pytest.mark.parametrize(("page", "info", "code"), chosen)


def execute(page: str, code: str, tiny_pipeline: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    names = {"DECODER": str(tiny_pipeline), "NETWORK": network, "__name__": "__main__"}
    exec(compile(code, page, "exec"), names)


@snippets()
def test_snippets_run(page, info, code, desk, tiny_pipeline):
    execute(page, code, tiny_pipeline)


def test_the_guard_pages_first_command_runs(desk):
    """A network of timm's, with weights in the file that the command names, on the folder that it names."""
    try:
        import timm
    except Exception as error:  # a torchvision for another torch raises more than ImportError
        pytest.skip(f"timm cannot be imported: {error}")
    first = next(line for page, line in LINES if page == "docs/guard.md")
    name, *args = shlex.split(first)[1:]
    assert name == "guard"
    options = parse(reference.COMMANDS[name], name, args).where
    network = timm.create_model(options.model.removeprefix("timm:"), num_classes=3)
    save_tensors(desk / options.weights, network.state_dict())
    for picture in (desk / options.data).rglob("*.png"):
        shutil.copy(picture, picture.with_stem(f"{picture.stem}-again"))  # as many as the promise takes
    assert main([name, *args, "--size", "32", "--any-accuracy", "--detectors", "energy", "knn"]) == 0
    guard = Guard.load(desk / options.out)
    assert guard.guarantee.alpha == 0.05
    assert guard.classifier.settings["backbone"] == options.model


@snippets("mine")
def test_snippets_with_the_package_run(page, info, code, mine, desk, tiny_pipeline):
    execute(page, code, tiny_pipeline)


@snippets("hub")
def test_snippets_of_the_hub_run(page, info, code, desk, tiny_pipeline, tmp_path, monkeypatch):
    FolderHub.install(tmp_path / "hub", monkeypatch)
    execute(page, code, tiny_pipeline)


@pytest.mark.slow
@snippets(*CLUSTERS)
def test_snippets_on_clusters_run(page, info, code, desk, tiny_pipeline, monkeypatch):
    package = pytest.importorskip(info.removeprefix("needs="))
    if package.__name__ == "pyspark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    execute(page, code, tiny_pipeline)


def test_blocks_of_json_and_toml_are_such():
    for page, _, code in blocks("json"):
        assert json.loads(code), page
    for page, _, code in blocks("toml"):
        assert tomllib.loads(code), page


def test_configurations_in_sentences_are_such():
    """Objects of JSON are options of a run, or arms of them."""
    found = [code for page in TEXTS for code in inline(page) if code.startswith('{"')]
    objects = [json.loads(code) for code in found if "…" not in code and ": {option" not in code]
    assert objects
    for value in objects:
        for options in [value] if value.keys() <= Config.__dataclass_fields__.keys() else value.values():
            overlay(Config(), options)


# The package of docs/extending.md

OWN_LISTS = ("--sample.options", "--evaluate.detectors")


def without(args: list[str], flags: tuple[str, ...]) -> list[str]:
    """The arguments without these options and their values."""
    kept, dropping = [], False
    for arg in args:
        if arg.startswith("--"):
            dropping = arg in flags
        kept += [] if dropping else [arg]
    return kept


def test_a_run_uses_the_package_of_the_page_on_extending(mine, desk, tiny_pipeline):
    """The first command of the page, on a small budget: sampler, filter, loss and detector."""
    line = next(
        line for page, line in LINES if page == "docs/extending.md" and line.startswith("oodream run")
    )
    small = [*without(RUN, OWN_LISTS), "--sample.options", "candidates=20"]
    args = [*shlex.split(line)[1:], "--decode.source", str(tiny_pipeline), *small, "--run", "runs/extended"]
    assert main(args) == 0
    run = Run.open("runs/extended", plugins=True)
    assert run.config.sample.sampler.startswith("mine.")
    assert run.config.filter.filters[-1].startswith("mine.")
    assert run.config.regularize.loss[0].startswith("mine.")
    assert {row.detector for row in run.rows()} == {"energy", "mine.detector:Cosine"}
    assert type(run.classifier().loss).__module__ == "mine.loss"
    assert len(run.drop_reasons) == len(run.vectors)


# Pages that say what the program has


def test_the_page_of_options_is_what_the_program_says():
    assert TEXTS["docs/options.md"] == reference.options_page(), "make options"


@pytest.fixture(scope="session")
def plans(shapes, tiny_pipeline, tmp_path_factory) -> dict[str, Plan]:
    """The plan of a run by what it imagines, "images" or "latents"."""
    base = {"data": str(shapes), "decode": {"source": str(tiny_pipeline)}}
    return {
        output: Plan(Job(overlay(overlay(Config(), base), {"decode": {"output": output}}), folder))
        for output in ("images", "latents")
        for folder in [tmp_path_factory.mktemp(output)]
    }


@pytest.mark.parametrize("output", ["images", "latents"])
def test_the_page_of_options_knows_which_stages_read_a_section(output, plans):
    read = {
        (section, re.sub(r"-s\d+$", "-s…", name))
        for name, stage in plans[output].stages.items()
        for section in stage.sections
    }
    said = {(section, stage) for section, names in reference.SECTION_STAGES.items() for stage in names}
    absent = {"images": {"latents/imagined", "latents/adapter"}, "latents": {"images/imagined", "filter"}}
    absent["images"] |= {"latents"}  # the section, which is read where outliers are latents
    expected = {pair for pair in said if not absent[output] & {*pair}}
    assert read == expected


@starting("oodream run", "oodream demo")
def test_stages_in_commands_exist(page, line, plans):
    words = shlex.split(line)
    named = {name for flag, name in pairwise(words) if flag in ("--until", "--redo")}
    stages = {stage for plan in plans.values() for stage in plan.stages}
    folders = {stage.partition("/")[0] for stage in stages}
    assert named <= stages | folders | {CHANGED}


def test_the_page_on_a_runs_folder_names_every_file_and_every_attribute():
    page = TEXTS["docs/run-folder.md"]
    files = {path for path in vars(Layout(Path("run"))).values() if isinstance(path, Path)}
    missing = {file.name for file in files if file != Path("run") and file.name not in page}
    assert missing == set()
    attributes = {name for name in vars(Run) if not name.startswith("_")} | {
        "config",
        "command",
        "folder",
        "layout",
    }
    assert {name for name in attributes if not re.search(rf"`{name}[`(]", page)} == {"open"}
    assert "Run.open" in page


def test_the_page_on_detectors_has_them_all_and_the_parity_as_tested():
    page = TEXTS["docs/detectors.md"]
    assert table() in page
    for name in registry.names("detectors"):
        grid = ", ".join(getattr(registry.get("detectors", name), "GRID", {}))
        assert re.search(rf"^\| `{name}` \| .* \| {grid} \|$", page, re.M), name


def test_pages_name_this_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    named = {name for text in TEXTS.values() for name in re.findall(r"oodream-(\d[\d.]*)-py3", text)}
    cited = re.findall(r"^version: (.*)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert version
    assert named == {*cited} == {version[1]}


# Links


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_figure_of_the_results_is_drawn_from_their_numbers(tmp_path):
    script = [sys.executable, str(ROOT / "experiments" / "gains.py"), "--out", str(tmp_path / "gains.png")]
    subprocess.run(script, check=True, cwd=tmp_path)
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", TEXTS)
def test_links_inside_the_repository_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", TEXTS[page]):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: {target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    linked, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        linked.add(page)
        targets = re.findall(r"\]\((?!https?://)([^)#]+\.md)", page.read_text(encoding="utf-8"))
        new |= {(page.parent / target).resolve() for target in targets} - linked
    assert {page for page in PAGES if page not in linked} == set()
