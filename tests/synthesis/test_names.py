"""What a decoder's names say of a run: unknown classes that it has learnt, class words that it has not."""

from __future__ import annotations

import json
import re
import warnings

import pytest

from oodream.core.errors import DataError, StoreError
from oodream.data.builtin import FASHION_ID, FASHION_NEAR
from oodream.data.doodles import DOODLES_KNOWN, DOODLES_WORLD, NEVER_WORDS
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.names import check_without, hidden, known_to, unlearnt, warn_of_names


@pytest.fixture
def decoder(tmp_path):
    """A folder with a decoder's names."""
    folder = tmp_path / "decoder"
    folder.mkdir()
    (folder / "names.json").write_text(json.dumps(["airplane", "Siamese cat", "grey wolf", "birch"]))
    return folder


# What is hidden


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("dog", "dog"),
        ("Dogs", "dog"),
        ("a dog's life", "dog"),
        ("hot dog", "dog"),
        ("dog-house", "dog"),
        ("two buses", "bus"),
        ("blueberries", "blueberry"),
        ("wolves", "wolf"),
        ("kitchen knives", "knife"),
        ("Fire-Engine", "fire engine"),
        ("a fire_engine", "fire engine"),
        ("fire\u00a0 engines", "Fire Engine"),
        ("cafe\u0301", "caf\u00e9"),
        ("c++ compiler", "c++"),
    ],
)
def test_a_name_holds_a_word(name, unknown):
    assert hidden(["tree", name], ["unheard", unknown]) == {name: unknown}


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("dogma", "dog"),
        ("bulldog", "dog"),
        ("scatter", "cat"),
        ("cats", "catsuit"),
        ("engine fire", "fire engine"),
        ("fire of an engine", "fire engine"),
        ("aXc", "a.c"),
    ],
)
def test_a_name_does_not_hold_a_part_of_a_word(name, unknown):
    assert hidden([name], [unknown]) == {}


def test_synonyms_tell_the_class():
    names = ["tabby", "poodle", "a tom cat", "bull", "toms"]
    synonyms = {"cat": ["tabby", "tom"], "dog": ["poodle"], "cow": ["bull"]}
    assert hidden(names, ["cat", "dog"], synonyms) == {
        "tabby": "cat",
        "poodle": "dog",
        "a tom cat": "cat",
        "toms": "cat",
    }
    assert hidden(names, ["horse"], synonyms) == {}
    assert hidden([], ["cat"], synonyms) == hidden(names, [], synonyms) == {}


# What is known


def test_the_names_of_a_folder_and_of_none(decoder, tmp_path):
    assert known_to(decoder) == {"airplane", "Siamese cat", "grey wolf", "birch"}
    assert known_to(str(decoder)) == known_to(decoder)
    assert known_to(tmp_path) is None
    assert known_to("stable-diffusion-v1-5/stable-diffusion-v1-5") is None


def test_a_damaged_list_is_named(decoder):
    (decoder / "names.json").write_text("[1, 2]")
    with pytest.raises(DecoderError, match=r'names\.json is no list of names such as \["cat", "dog"\]'):
        known_to(decoder)
    (decoder / "names.json").write_text("[")
    with pytest.raises(StoreError, match=r"names\.json is damaged"):
        known_to(decoder)


def test_class_words_that_no_name_holds():
    names = ["airplane", "Siamese cat", "sport-utility vehicle"]
    assert unlearnt(names, ["Airplane", "cat", "sport utility vehicle"]) == []
    assert unlearnt(names, ["plane", "siamese dog", "vehicle airplane"]) == [
        "plane",
        "siamese dog",
        "vehicle airplane",
    ]
    assert unlearnt([], ["cat"]) == ["cat"]


def test_warnings_name_what_is_missing_and_what_is_hidden(decoder):
    with pytest.warns(UserWarning, match="has not learnt 'grouse': its pictures will not show it") as caught:
        warn_of_names(decoder, ["airplane", "grouse"])
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="has not learnt 'grouse', 'heron': its pictures will not show them"):
        warn_of_names(decoder, ["grouse", "heron"])
    with pytest.warns(UserWarning, match=re.escape("has learnt what is unknown here: 'Siamese cat' (cat).")):
        warn_of_names(decoder, ["airplane"], ["cat", "horse"])
    with pytest.warns(UserWarning, match=re.escape("'grey wolf' (dog)")):
        warn_of_names(decoder, ["airplane"], ["dog"], {"dog": ["wolf"]})


def test_no_warning_where_names_fit_or_are_not_known(decoder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_names(decoder, ["airplane", "cat"], ["horse"])
        warn_of_names(tmp_path, ["grouse"], ["cat"])
        warn_of_names("owner/name", ["grouse"], ["cat"])


# What must not be learnt


def test_captions_are_refused_by_name():
    with pytest.raises(DataError) as caught:
        check_without(["a photo of a dog", "hot dog", "tree", "Cats", "cat"], ["dog", "cat"])
    assert str(caught.value) == (
        "Captions hold what --without excludes: 'Cats' (cat), 'a photo of a dog' (dog), cat, 'hot dog' (dog)."
        " Take their pictures out, or exclude less."
    )
    check_without(["hot doggerel", "tree"], ["dog", "cat"])
    check_without(["dog"], [])


def test_names_come_from_a_file(tmp_path):
    file = tmp_path / "unknown.txt"
    file.write_text("# relatives\n\ndog  # and its breeds\nfire engine\n", encoding="utf-8")
    check_without(["relatives", "tree", "breeds"], [str(file)])
    for caption in ("two dogs", "fire-engines", "a lorry"):
        with pytest.raises(DataError, match=re.escape(caption)):
            check_without(["tree", caption], [str(file), "lorry"])
    with pytest.raises(DataError, match=r"--without .*missing\.txt cannot be read"):
        check_without(["tree"], [str(tmp_path / "missing.txt")])


def test_a_decoder_that_goes_on_learning_is_asked_too(decoder, tmp_path):
    with pytest.raises(DataError, match=r"has learnt what --without excludes: 'Siamese cat' \(cat\)"):
        check_without(["tree"], ["cat"], str(decoder))
    check_without(["tree"], ["dog"], str(decoder))
    with pytest.warns(UserWarning, match="does not say what it has learnt"):
        check_without(["tree"], ["dog"], str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_without(["tree"], [], str(tmp_path))


# The embedded decoder

HOMONYMS = {"baseball bat"}  # the bat that is a relative of the owl has wings


def test_the_embedded_decoder_has_learnt_every_class_word_that_it_is_for():
    names = known_to("embedded")
    assert {name.lower() for name in (*DOODLES_KNOWN, *DOODLES_WORLD)} <= names
    assert {*FASHION_ID} <= names


def test_the_embedded_decoder_has_learnt_nothing_that_is_near():
    assert hidden(known_to("embedded"), (*NEVER_WORDS, *FASHION_NEAR)).keys() == HOMONYMS
