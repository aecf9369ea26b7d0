"""Extensions by name, by dotted path, and options of the wrong kind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from oodream.core import registry


def test_a_name_that_is_taken(monkeypatch):
    registry.names("filters")  # all are there before what is registered here goes again
    monkeypatch.setitem(registry._registered, "filters", {**registry._registered["filters"]})

    @registry.register("filters", "test_twice")
    class One:
        pass

    with pytest.raises(ValueError, match="filters already has a 'test_twice'"):
        registry.register("filters", "test_twice")(object)
    assert registry.get("filters", "test_twice") is One


def test_modules_that_stand_beside_extensions_are_none():
    assert not any(name.startswith("_") for name in registry.names("samplers"))
    assert "knn" in registry.names("samplers")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("energie", "No detector is called 'energie'. Did you mean 'energy'"),
        (
            "nowhere:Thing",
            "detector 'nowhere:Thing' cannot be imported: No module named 'nowhere'.*PYTHONPATH",
        ),
        ("nowhere.at:Thing", "No module named 'nowhere'.*PYTHONPATH=FOLDER oodream"),
        ("math:Thing", "detector 'math:Thing' cannot be imported: module 'math' has no attribute 'Thing'"),
    ],
)
def test_names_that_lead_nowhere(name, message):
    with pytest.raises(ValueError, match=message):
        registry.get("detectors", name)


@pytest.mark.parametrize(
    ("family", "name", "options", "message"),
    [
        ("detectors", "knn", {"k": "50"}, "detector 'knn': k cannot be '50'"),
        ("detectors", "knn", {"kk": 50}, "The detector 'knn' has no option 'kk'. Did you mean 'k'"),
        ("samplers", "knn", {"k": 3.5}, "sampler 'knn': k cannot be 3.5"),
        ("decoders", "image_to_image", {"strenght": 0.5}, "no option 'strenght'. Did you mean 'strength'"),
        (
            "losses",
            "energy_logistic",
            {"beta": "one"},
            "loss 'energy_logistic': beta cannot be 'one'; it takes a number",
        ),
        (
            "losses",
            "energy_logistic",
            {"weighted": 1},
            "loss 'energy_logistic': weighted cannot be 1; it takes true or false",
        ),
    ],
)
def test_options_of_the_wrong_kind_are_named(family, name, options, message):
    with pytest.raises(ValueError, match=message):
        registry.make(family, name, **options)


def test_a_class_without_a_constructor_of_its_own_has_no_options():
    with pytest.raises(ValueError, match=r"The loss 'cross_entropy' has no option 'logit'\. There are: none"):
        registry.make("losses", "cross_entropy", logit=1.0)


def test_an_option_of_another_one_is_named_as_it_is_written():
    names = ("cross_entropy", "kd@b", "kd")
    with pytest.raises(
        ValueError, match=r"'cross_entropy' has no option 'logit', and 'kd@b' has: .* kd@b\.logit=\."
    ):
        registry.make_all("losses", names, {"logit": 1.0})
    assert registry.make_all("losses", names, {"kd@b.logit": 3.0})["kd@b"].logit == 3.0


class Broken:
    def __init__(self, depth: int = 1) -> None:
        self.nowhere.depth = depth


def test_what_a_plug_in_raises_when_it_is_made_has_its_name_and_place():
    sentence = (
        rf"^filter '{__name__}:Broken', made with depth=2 \(its options: depth\): "
        r"AttributeError: .* \(.*test_registry\.py, line \d+\)\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        registry.make("filters", f"{__name__}:Broken", depth=2)


class Refusing:
    def __init__(self, depth: int, width: int = 1) -> None:
        if depth < width:
            raise ValueError("the depth is below the width")


class Passing(Refusing):
    """Gives by itself what its base needs."""

    def __init__(self, width: int = 1, **more: int) -> None:
        super().__init__(3, width, **more)


NUMBER = 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "Refusing",
            {"depth": 1, "width": 2},
            r", made with depth=1, width=2 \(its options: depth, width\): ValueError: the",
        ),
        ("Passing", {"width": 4}, r", made with width=4 \(.*\): ValueError: the depth is below"),
        ("Refusing", {}, r" needs the option 'depth': depth=VALUE\."),
        ("Refusing", {"depth": "x"}, ": depth cannot be 'x'; it takes a whole number"),
        ("Broken", {"deep": 1}, r" has no option 'deep'\. Did you mean 'depth'\? There are: depth"),
        ("NUMBER", {}, " is of type int, and no class or function"),
    ],
)
def test_a_plug_in_that_fails_is_told_from_an_option_that_is_misspelt(name, options, message):
    with pytest.raises(ValueError, match=f"ilter '{__name__}:{name}'{message}"):
        registry.make("filters", f"{__name__}:{name}", **options)


def test_what_a_base_needs_an_extension_may_give_by_itself():
    assert isinstance(registry.make("filters", f"{__name__}:Passing", width=2), Passing)


def test_whole_numbers_are_numbers():
    assert registry.make("losses", "energy_logistic", beta=2).beta == 2.0
    assert isinstance(registry.make("losses", "energy_logistic", beta=2).beta, float)


def test_options_by_name():
    names, options = ("energy_logistic", "kd", "kd@b"), {"beta": 2.0, "kd.logit": 3.0, "kd@b.logit": 4.0}
    expected = {"energy_logistic": {"beta": 2.0}, "kd": {"logit": 3.0}, "kd@b": {"logit": 4.0}}
    assert registry.options_by_name("losses", names, options) == expected
    for wrong, message in (
        ((), "At least one loss is needed"),
        (("kd", "kd"), "The loss 'kd' is named twice. Tell them apart as kd@LABEL"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.options_by_name("losses", wrong, {})
    with pytest.raises(ValueError, match=r"micl\.weight is of a loss that is not used; the losses are kd"):
        registry.options_by_name("losses", ("kd",), {"micl.weight": 1.0})


def test_an_extension_is_imported_without_the_others():
    """Others import libraries that take longer than all else that a guard needs."""
    script = (
        "import sys; from oodream.core.registry import get; get('detectors', 'energy'); "
        "sys.exit('sklearn' in sys.modules or 'oodream.detection.detectors.knn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert registry.get("losses", "club_joint").__module__.endswith(".club")
    with pytest.raises(ValueError, match="No detector is called '__init__'"):
        registry.get("detectors", "__init__")
