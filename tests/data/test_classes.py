"""Class lists: complete, without twins, and every class word where the splice looks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from oodream.config import FitDecoderConfig
from oodream.core.errors import DataError
from oodream.data.classes import lists, named, prompts_for, spans_for
from oodream.data.folders import load_folder
from oodream.synthesis.fit_decoder import fit_tokenizer
from oodream.synthesis.text import locate
from tests.helpers.pictures import class_folder

SIZES = {"imagenet100": 100, "cifar100": 100, "cifar10": 10}
# The words the published code adds for ImageNet-100; for the nail it begins a second sentence, of a wire.
DISAMBIGUATED = {
    "kite": "kite bird", "quail": "quail bird", "chest": "chest box", "tick": "tick bite",
    "stingray": "stingray in the water", "ox": "ox animal", "impala": "impala animal", "nail": "wire nail",
}  # fmt: skip
# DREAM-OOD's ImageNet-100, in the order of its labels (n without leading zeros).
WORDNET = """
    1498041 1514859 1582220 1608432 1616318 1687978 1776313 1806567 1833805 1882714 1910747 1944390 1985128
    2007558 2071294 2085620 2114855 2123045 2128385 2129165 2129604 2165456 2190166 2219486 2226429 2279972
    2317335 2326432 2342885 2363005 2391049 2395406 2403003 2422699 2442845 2444819 2480855 2510455 2640242
    2672831 2687172 2701002 2730930 2769748 2782093 2787622 2793495 2799071 2802426 2814860 2840245 2906734
    2948072 2980441 2999410 3014705 3028079 3032252 3125729 3160309 3179701 3220513 3249569 3291819 3384352
    3388043 3450230 3481172 3594734 3594945 3627232 3642806 3649909 3661043 3676483 3724870 3733281 3759954
    3761084 3773504 3804744 3916031 3938244 4004767 4026417 4090263 4133789 4153751 4296562 4330267 4371774
    4404412 4465501 4485082 4507155 4536866 4579432 4606251 7714990 7745940
""".split()


def test_built_in_lists_are_complete():
    assert lists() == tuple(sorted(SIZES))
    for source, size in SIZES.items():
        for part in named(source):
            assert len(part) == len(set(part)) == size, source


def test_folders_are_those_of_the_data_sets():
    assert named("imagenet100")[2] == tuple(f"n{int(number):08}" for number in WORDNET)
    for source in SIZES:
        folders = named(source)[2]
        assert list(folders) == sorted(folders), "the order of the labels"
    assert named("cifar100")[2][1:3] == ("aquarium_fish", "baby")


def test_words_that_mean_something_else_are_disambiguated():
    names, prompts, _ = named("imagenet100")
    given = dict(zip(names, prompts, strict=True))
    for name in names:
        assert given[name] == f"A high-quality image of the {DISAMBIGUATED.get(name, name)}"
    names, prompts, folders = named("cifar100", "a photo of a {}")
    assert prompts[folders.index("aquarium_fish")] == "a photo of a aquarium fish"
    assert names[folders.index("aquarium_fish")] == "fish"


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("vocabulary", [600, 4096], ids=["names of several tokens", "names of one token"])
def test_every_class_word_occurs_in_its_prompt(source, vocabulary, tmp_path):
    """In the published code CIFAR-100's "chimp" does not: its images are ordinary chimpanzees."""
    names, prompts, _ = named(source)
    tokenizer = fit_tokenizer(
        prompts * 4, FitDecoderConfig(vocabulary=vocabulary, tokens=77), tmp_path / "tokenizer"
    )
    for name, prompt in zip(names, prompts, strict=True):
        ids, start, stop = locate(tokenizer, name, prompt)
        assert ids[start:stop] == tokenizer(name, add_special_tokens=False).input_ids


def test_a_list_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[classes]\nn1 = "red  fox"\nn2 = "crane"\n[prompts]\ncrane = "Crane bird"\n', encoding="utf-8"
    )
    assert named(str(file), "a {}") == (("red fox", "crane"), ("a red fox", "a Crane bird"), ("n1", "n2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[classes]\na = "fox"\nb = "Fox"', "b and a are both the class 'Fox'"),
        ('[classes]\na = "kite"\n[prompts]\nkite = "a bird"', "do not hold .*'kite'"),
        ('[classes]\na = "ox"\n[prompts]\nox = "foxes"', "do not hold .*'ox'"),
        (
            '[classes]\na = "kite"\n[prompts]\nkit = "kit bird"',
            "'kit', which is no class. Did you mean 'kite'",
        ),
        ('[classes]\na = "kite"\n[prompts]\nkite = 3', r"expected in the table \[prompts\]"),
        ('[classes]\na = "kite"\n[prompt]\nkite = "kite bird"', "not prompt"),
        ('[prompts]\nkite = "kite bird"', r"expected a table \[classes\]"),
        ('[classes]\na = "dog"\n[aliases]\nb = "dig"', "'dig', which is no class. Did you mean 'dog'"),
        ("classes", "cannot be read"),
        ('[classes]\na = "Unknown"', "class is called 'Unknown'.* Give a another name there"),
    ],
)
def test_lists_that_do_not_hold_together_are_refused(text, message, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        named(str(file))


def test_unknown_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no class list 'cifar'\. There are: cifar10, cifar100, imagenet100"):
        named("cifar")
    with pytest.raises(DataError, match="cannot be read"):
        named(str(tmp_path / "none.toml"))


def test_prompts_of_names_without_words_of_their_own():
    assert prompts_for(("kite", "dam"), {"kite": "kite bird"}, "a {}") == ("a kite bird", "a dam")


def test_a_folder_takes_a_list_as_its_classes_toml(shapes: Path, tmp_path: Path):
    folder = tmp_path / "shapes"
    folder.mkdir()
    for path in shapes.iterdir():
        (folder / path.name).symlink_to(path)
    file = folder / "classes.toml"
    file.write_text(
        '[classes]\nstar = "sun"\n[prompts]\nsun = "yellow sun"\ncircle = "round circle"\n', encoding="utf-8"
    )
    assert load_folder(folder, 8)[0].classes == ("circle", "square", "sun")
    file.write_text('[classes]\nstar = "sun"\n[prompts]\nstar = "yellow star"\n', encoding="utf-8")
    with pytest.raises(DataError, match="'star', which is no class"):
        load_folder(folder, 8)


def test_beside_folders_a_list_may_have_aliases_alone(tmp_path: Path):
    """As it may have words for a class that is called by its folder."""
    folder = class_folder(tmp_path, cat=5, dog=5)
    (folder / "classes.toml").write_text('[aliases]\nmops = "dog"\n')
    assert load_folder(folder, 8)[0].classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"expected a table \[classes\]"):
        load_folder(folder, 8, classes=folder / "classes.toml")
    (folder / "classes.toml").write_text('[classes]\ncat = "lynx"\n[aliases]\nmops = "dig"\n')
    with pytest.raises(DataError, match="'dig', which is no class"):
        load_folder(folder, 8)


@pytest.mark.parametrize(
    ("name", "words", "template", "expected"),
    [
        ("kite", {}, "a {}", (2, 6)),
        ("kite", {"kite": "kite bird"}, "a {} in the sky", (2, 6)),
        ("nail", {"nail": "wire Nail"}, "a {}", (7, 11)),
        ("plain", {}, "a photo of a {} on a plain background", (13, 18)),
        ("plain", {}, "on a plain background, a {}", (25, 30)),
        ("key", {"key": "key of a keyboard's key"}, "a {}", (22, 25)),
        ("x", {}, "{{}} {}!", (3, 4)),
    ],
)
def test_a_span_is_the_name_in_the_placeholder(name, words, template, expected):
    """The placeholder's words hold the name, whatever the template says; of several the last counts."""
    (prompt,), (span,) = prompts_for((name,), words, template), spans_for((name,), words, template)
    assert span == expected
    assert prompt[slice(*span)].lower() == name


@pytest.mark.parametrize("template", ["a picture", "{} or {}", "a {name}", "a {!r}", "a {", "{:>9}"])
def test_a_template_has_one_placeholder(template):
    with pytest.raises(
        DataError, match=r"The prompt '.*' (\(decode\.prompt\) must hold \{\} once|cannot be read)"
    ):
        prompts_for(("kite",), {}, template)


def test_words_do_not_pass_for_a_placeholder():
    assert prompts_for(("{}",), {}, "a {}") == ("a {}",)
