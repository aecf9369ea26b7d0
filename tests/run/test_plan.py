"""Every section of the configuration is the input of the stages that read it: whatever is added to one makes
them stale.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch

from oodream.config import Config
from oodream.core.options import overlay
from oodream.run.facts import plugin_hashes
from oodream.run.job import Job
from oodream.run.plan import Plan
from oodream.run.sources import as_many
from tests.helpers.clouds import clouds, saved

CLASSIFIERS = {"classifier/baseline-s0", "classifier/regularized-s0"}
READ_BY = {
    "align": {"align"},
    "sample": {"vectors"},
    "decode": {"images/imagined", "strips"},
    "reconstruct": {"images/reconstructed"},
    "filter": {"filter"},
    "train": CLASSIFIERS,
    "regularize": {"classifier/regularized-s0"},
    "evaluate": {"scores"},
    "guard": {"guard"},
    "shift": {"shift"},
    "report": {"strips", "report"},
}
LATENTS = {"decode": {"output": "latents"}, "regularize": {"loss": ["energy_logistic", "kd"]}}


@pytest.fixture(scope="module")
def config(shapes, tiny_pipeline) -> Config:
    options = {"data": str(shapes), "decode": {"source": str(tiny_pipeline)}, "evaluate": {"n_far": 2}}
    return overlay(Config(), {"device": "cpu", **options})


def with_new_field(config: Config, section: str) -> Config:
    """The configuration as a later version would have it, with one more field in a section."""
    old = getattr(config, section)

    @dataclass(frozen=True, kw_only=True)
    class Later(type(old)):
        new_field: int = 1

    values = {field.name: getattr(old, field.name) for field in fields(old)}
    return replace(config, **{section: Later(**values)})


def stale(before: Config, after: Config, folder) -> set[str]:
    """The stages whose own inputs differ, whatever comes before them."""
    plans = [Plan(Job(config, folder)).inputs for config in (before, after)]
    own = [
        {name: {k: v for k, v in inputs.items() if k != "after"} for name, inputs in plan.items()}
        for plan in plans
    ]
    return {name for name in own[1] if own[0].get(name) != own[1][name]}


def test_every_section_is_read_by_some_stage():
    sections = {
        field.name for field in fields(Config) if dataclasses.is_dataclass(getattr(Config(), field.name))
    }
    assert sections == {*READ_BY, "latents"}


@pytest.mark.parametrize("section", READ_BY)
def test_a_new_field_makes_the_stages_stale_that_read_its_section(section, config, tmp_path):
    assert stale(config, with_new_field(config, section), tmp_path) == READ_BY[section]


def test_a_new_field_of_the_latents_makes_adapter_and_classifier_stale(config, tmp_path):
    latents = overlay(config, LATENTS)
    expected = {"latents/adapter", "classifier/regularized-s0"}
    assert stale(latents, with_new_field(latents, "latents"), tmp_path) == expected


def test_what_is_stale_makes_all_behind_it_stale(config, tmp_path):
    before, after = (
        Plan(Job(c, tmp_path)).inputs for c in (config, overlay(config, {"sample": {"per_class": 3}}))
    )
    changed = {name for name in after if before[name] != after[name]}
    expected = {"vectors", "images/imagined", "strips", "filter", "classifier/regularized-s0"}
    assert changed == expected | {"scores", "guard", "shift", "audit", "report"}


def test_another_shifted_folder_is_measured_and_audited(config, tmp_path):
    """What was audited of a run without shifted folders stays as it was."""
    for i, name in enumerate(("day", "night")):
        saved(tmp_path / name / "star", clouds(3, i, size=32))
    day, night = (overlay(config, {"shifted": [str(tmp_path / name)]}) for name in ("day", "night"))
    with pytest.warns(UserWarning, match="no pictures of these known classes"):
        assert stale(config, day, tmp_path) == stale(day, night, tmp_path) == {"shift", "audit"}
    assert "shifted" not in Plan(Job(config, tmp_path)).inputs["audit"]


def test_the_share_of_reconstructions_leaves_the_baselines_alone(config, tmp_path):
    plans = [Plan(Job(c, tmp_path)).inputs for c in (config, overlay(config, {"reconstruct": {"frac": 0.5}}))]
    changed = {name for name in plans[1] if plans[0][name] != plans[1][name]}
    expected = {"images/reconstructed", "classifier/regularized-s0"}
    assert changed == expected | {"scores", "guard", "shift", "audit", "report"}


def test_another_way_of_rendering_makes_the_control_stale_and_not_the_vectors(config, tmp_path):
    other = overlay(config, {"decode": {"options": {"resolution": 16}}})
    assert stale(config, other, tmp_path) == {
        "images/imagined", "images/control", "images/reconstructed", "strips",
    }  # fmt: skip


def test_an_autoencoder_is_known_by_its_weights_wherever_it_lies(config, tmp_path):
    first = autoencoder(tmp_path / "first", seed=0)
    shutil.copytree(first, tmp_path / "second")
    configs = [
        overlay(config, {"decode": {"options": {"vae": str(folder)}}})
        for folder in (first, tmp_path / "second", autoencoder(tmp_path / "third", seed=1))
    ]
    assert stale(configs[0], configs[1], tmp_path) == set()
    assert stale(configs[0], configs[2], tmp_path) == {
        "images/imagined", "images/control", "images/reconstructed", "strips",
    }  # fmt: skip


def test_the_place_of_an_autoencoder_holds_from_any_working_directory(config, tmp_path, monkeypatch):
    autoencoder(tmp_path / "small", seed=0)
    monkeypatch.chdir(tmp_path)
    job = Job(overlay(config, {"decode": {"options": {"vae": "small"}}}), tmp_path / "run")
    assert job.config.decode.options["vae"] == str(tmp_path / "small")


def autoencoder(folder: Path, seed: int) -> Path:
    """The folder of a tiny autoencoder with random weights, of the tiny pipeline's scale."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4),
        decoder_block_out_channels=(4, 4, 4),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).save_pretrained(folder)
    return folder


def pictures(folder: Path, seed: int) -> Path:
    saved(folder, clouds(3, seed))
    return folder


@pytest.fixture
def oracle(config, tmp_path) -> Config:
    return with_real(config, pictures(tmp_path / "others", 0))


def with_real(config: Config, folder: Path) -> Config:
    return overlay(config, {"regularize": {"outliers": "real", "real": str(folder)}})


def test_with_real_outliers_nothing_is_imagined_and_the_baseline_stays(config, oracle, tmp_path):
    plain, real = (Plan(Job(c, tmp_path)).inputs for c in (config, oracle))
    imagined = {"align", "features", "vectors", "images/imagined", "strips", "filter"}
    assert {*plain} - {*real} == imagined
    assert {*real} < {*plain}
    same = {"classes", "images/control", "images/reconstructed", "classifier/baseline-s0"}
    assert {name for name in real if real[name] == plain[name]} == same
    latents = Plan(Job(overlay(oracle, {"decode": {"output": "latents"}}), tmp_path)).inputs
    assert latents == real


def test_other_real_outliers_make_the_regularized_classifier_stale(oracle, tmp_path):
    others = with_real(oracle, pictures(tmp_path / "more", 1))
    assert stale(oracle, others, tmp_path) == {"classifier/regularized-s0"}
    moved = with_real(oracle, Path(shutil.copytree(tmp_path / "others", tmp_path / "elsewhere")))
    assert stale(oracle, moved, tmp_path) == set(), "where they lie does not matter"


def test_where_weights_lie_does_not_matter(config, tiny_pipeline, tmp_path):
    """What counts of a decoder are its weights, which are part of the class vectors' space."""
    moved = shutil.copytree(tiny_pipeline, tmp_path / "moved")
    there = overlay(config, {"decode": {"source": str(moved)}})
    assert Plan(Job(config, tmp_path)).inputs == Plan(Job(there, tmp_path)).inputs


def test_changed_code_of_a_plug_in_makes_stale_what_uses_it(config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from oodream.detection.detectors.energy import Energy\nclass Mine(Energy): pass\n"
    (tmp_path / "mine_plan.py").write_text(source)
    mine = overlay(config, {"evaluate": {"detectors": ["energy", "mine_plan:Mine"]}})
    before = Plan(Job(mine, tmp_path)).inputs
    (tmp_path / "mine_plan.py").write_text(source + "# another\n")
    after = Plan(Job(mine, tmp_path)).inputs
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"scores", "audit", "report"}


def test_what_is_guided_by_the_baseline_is_drawn_after_it(config, tmp_path):
    guided = overlay(config, {"decode": {"decoder": "guided"}})
    before, after = (Plan(Job(c, tmp_path)) for c in (config, guided))
    names = [list(plan.stages) for plan in (before, after)]
    assert names[0].index("images/imagined") < names[0].index("classifier/baseline-s0")
    assert names[1].index("images/imagined") > names[1].index("classifier/baseline-s0")
    assert {*names[0]} == {*names[1]}
    for plan in (before, after):
        done: set[str] = set()
        for name, stage in plan.stages.items():
            assert done >= {*stage.after}
            done.add(name)
    assert set(after.inputs["images/imagined"]["after"]) == {"vectors", "classifier/baseline-s0"}
    trained = overlay(guided, {"train": {"soften": 0.5}})
    assert Plan(Job(trained, tmp_path)).inputs["images/imagined"] != after.inputs["images/imagined"]
    edited = overlay(config, {"decode": {"decoder": "edited"}})
    assert list(Plan(Job(edited, tmp_path)).stages) == names[0]


def test_a_decoders_options_make_its_images_stale_and_no_options_do_not(config, tmp_path):
    """The inputs are as they were before decoders had options, so that older runs go on."""
    assert "options" not in Plan(Job(config, tmp_path)).inputs["images/imagined"]["decode"]
    edited = overlay(config, {"decode": {"decoder": "edited"}})
    others = overlay(edited, {"decode": {"options": {"low": 0.5}}})
    assert stale(edited, others, tmp_path) == {"images/imagined", "strips"}


IMAGINING = {"align", "features", "vectors", "images/imagined", "filter", "strips"}
VIRTUAL = {"regularize": {"loss": ["vos", "fever"]}}
KNOWN = {"regularize": {"outliers": "known"}}


INLIERS = {"sample": {"options": {"kind": "inlier"}}, "regularize": {"loss": ["cross_entropy"]}}
KNOWN_INLIERS = INLIERS | {"regularize": {"loss": ["cross_entropy"], "outliers": "known"}}


@pytest.mark.parametrize(
    "options",
    [VIRTUAL, KNOWN, KNOWN_INLIERS, {"regularize": {"loss": ["logit_norm"], "ratio": 0.0}}],
)
def test_what_trains_on_nothing_imagined_imagines_nothing(options, config, tmp_path):
    job = Job(overlay(config, options), tmp_path)
    assert not job.run.imagines
    assert {*Plan(Job(config, tmp_path)).stages} - {*Plan(job).stages} == IMAGINING


def test_inliers_are_imagined_by_a_loss_that_takes_no_outliers(config, tmp_path):
    assert {*Plan(Job(overlay(config, INLIERS), tmp_path)).stages} >= IMAGINING


def test_as_many_known_images_stand_in_as_would_be_sampled(config, tmp_path):
    """The numbers of vectors and classes are inputs of a training that shows known images as outliers."""
    known = overlay(config, KNOWN)
    more = overlay(known, {"sample": {"per_class": 7}})
    assert stale(known, more, tmp_path) == {"classifier/regularized-s0"}
    assert as_many(Job(more, tmp_path)) == 7 * len(Job(more, tmp_path).book.names)
    assert as_many(Job(overlay(more, {"regularize": {"max_outliers": 5}}), tmp_path)) == 5


def test_known_latents_stand_in_for_imagined_ones(config, tmp_path):
    stages = Plan(Job(overlay(overlay(config, LATENTS), KNOWN), tmp_path)).stages
    assert {"latents/known", "latents/adapter"} <= {*stages}
    assert not {*stages} & (IMAGINING | {"latents/imagined"})


def test_what_a_plug_in_imports_beside_it_is_part_of_its_hash(config, tmp_path, monkeypatch):
    package = tmp_path / "minehashed"
    package.mkdir()
    (package / "detector.py").write_text("from minehashed.helper import OFFSET\n")
    (package / "helper.py").write_text("OFFSET = 0\n")
    (tmp_path / "alone_hashed.py").write_text("\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = overlay(config, {"evaluate": {"detectors": ["minehashed.detector:Mine", "alone_hashed:Mine"]}})
    before = plugin_hashes(named)
    (package / "helper.py").write_text("OFFSET = 100\n")
    (tmp_path / "unrelated.py").write_text("\n")
    after = plugin_hashes(named)
    assert after["minehashed.detector:Mine"] != before["minehashed.detector:Mine"]
    assert after["alone_hashed:Mine"] == before["alone_hashed:Mine"]
