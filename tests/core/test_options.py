"""Sections of options: ranges, overlays, and values of the wrong kind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.options import ConfigError, Option, Range, Section, overlay, to_json
from oodream.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class Part(Section):
    count: Annotated[int, Range(1)] = 3
    share: Annotated[float, Range(0, 1, "high")] = 0.5
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Whole(Section):
    part: Part = field(default_factory=Part)
    seed: int = 0


@pytest.mark.parametrize(
    ("low", "high", "open_", "inside", "outside"),
    [
        (0, 1, "", (0, 0.5, 1), (-0.1, 1.1, float("nan"))),
        (0, 1, "low", (0.1, 1), (0, 2)),
        (0, 1, "high", (0, 0.9), (1, -1)),
        (0, 1, "both", (0.5,), (0, 1)),
        (1, float("inf"), "", (1, 10**9), (0, float("inf"))),
    ],
)
def test_ranges(low, high, open_, inside, outside):
    r = Range(low, high, open_)
    assert all(value in r for value in inside)
    assert not any(value in r for value in outside)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"share": 1.0}, "share must be between 0 and 1, and below 1, not 1.0"),
        ({"share": float("nan")}, "share must be between 0 and 1, and below 1, not nan"),
        ({"kind": "c"}, "kind must be one of a, b, not 'c'"),
    ],
)
def test_a_section_checks_itself(values, message):
    with pytest.raises(ConfigError, match=message):
        Part(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"part": {"count": -1}}, "part.count must be at least 1, not -1"),
        ({"part": {"count": 2.5}}, "part.count cannot be 2.5; it takes a whole number"),
        ({"part": {"count": True}}, "part.count cannot be True; it takes a whole number"),
        ({"part": {"count": None}}, "part.count cannot be None; it takes a whole number"),
        ({"part": {"names": "one"}}, "part.names takes a list, not 'one'"),
        ({"part": {"options": {"k": None}}}, "part.options takes an object of numbers"),
        ({"part": []}, "part holds options of its own; give it an object"),
        ({"parts": {}}, "There is no option 'parts'. Did you mean 'part'"),
        ("text", "The configuration holds options of its own"),
    ],
)
def test_overlay_names_the_key(values, message):
    with pytest.raises(ConfigError, match=message):
        overlay(Whole(), values)


def test_a_configuration_in_python_is_checked_as_one_of_the_command_line():
    with pytest.raises(ConfigError, match="shifted is a list, not 'night'"):
        Config(shifted="night")
    with pytest.raises(ConfigError, match="train is a TrainConfig, not "):
        Config(train={"backbone": "resnet8"})
    assert Config(shifted=("night",), ood=["near=dusk"])


def test_overlay_lays_options_over_those_that_are_there():
    base = Whole(part=Part(options={"k": 3, "cosine": 0.8}))
    config = overlay(base, {"part": {"options": {"k": 5}, "share": 0}, "seed": 2})
    assert config == Whole(part=Part(options={"k": 5, "cosine": 0.8}, share=0.0), seed=2)
    assert overlay(Whole(), to_json(config)) == config


def test_epochs_that_are_given_count(capsys, no_preview):
    """A preset's least number of steps is for its own epochs."""
    folder = PRESETS["folder"].config
    assert folder.train.optimisation.min_steps == 600

    def steps(**given):
        return overlay(folder, {"train": {"optimisation": given}}).train.optimisation.min_steps

    assert steps(epochs=2) == 0
    assert steps(epochs=2, min_steps=40) == 40
    assert steps(epochs=folder.train.optimisation.epochs) == steps(lr=0.05) == 600
    flag = "--train.optimisation"
    for words, left in (([f"{flag}.epochs", "2"], 0), ([f"{flag}.epochs", "2", f"{flag}.min-steps", "9"], 9)):
        assert main(["run", "--data", "photos", "--dry-run", *words]) == 0
        said = json.loads(capsys.readouterr().out.rpartition("Would run")[0])
        assert said["train"]["optimisation"]["min_steps"] == left
        assert said["align"]["optimisation"]["min_steps"] == 600


def test_options_of_a_part_go_when_another_replaces_it(capsys, no_preview):
    """As `--sample.sampler gaussian` does on the command line, where the preset's sampler has options."""
    config = overlay(Config(), {"sample": {"sampler": "words", "options": {"words": "world", "cosine": 0.9}}})
    given = {"sample": {"sampler": "gaussian", "options": {"spread": 2.0}}}
    assert overlay(config, given).sample.options is not given["sample"]["options"]
    others = [
        {"sampler": "gaussian"},
        {"sampler": "gaussian", "options": {"spread": 2.0}},
        {"sampler": "words"},
    ]
    options = [overlay(config, {"sample": other}).sample.options for other in others]
    assert options == [{}, {"spread": 2.0}, {"words": "world", "cosine": 0.9}]
    words = ["--sample.sampler", "gaussian", "--sample.options", "spread=2.0"]
    for given, expected in ((words[:2], {}), (words, {"spread": 2.0})):
        assert main(["run", "--preset", "doodles", "--dry-run", *given]) == 0
        shown = capsys.readouterr().out
        assert json.loads(shown[: shown.rindex("}") + 1])["sample"]["options"] == expected
    named = overlay(Config(), {"regularize": {"loss": ["extra_class"], "loss_options": {"named": True}}})
    for loss, left in (("vos", {}), ("extra_class", {"named": True})):
        assert overlay(named, {"regularize": {"loss": [loss]}}).regularize.loss_options == left


def test_every_number_of_a_run_has_a_range():
    """Or may be anything; so a new option is thought about."""
    import dataclasses
    import typing

    def numbers(section: type, at: str = ""):
        for name, hint in typing.get_type_hints(section, include_extras=True).items():
            if dataclasses.is_dataclass(hint):
                yield from numbers(hint, f"{at}{name}.")
            elif hint in (int, float):
                yield f"{at}{name}"

    assert list(numbers(Config)) == []
