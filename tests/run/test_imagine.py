"""Recipes: the vectors that they mean, and the pictures that the run's decoder draws of them."""

from __future__ import annotations

import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from oodream.core.options import ConfigError
from oodream.core.types import Decoder
from oodream.functional.slerp import slerp
from oodream.run.artifacts import Run
from oodream.run.imagine import (
    End,
    Move,
    Recipe,
    add_drawing,
    class_shown,
    draw,
    drawable_words,
    opinion,
    vector_of,
    way,
)
from oodream.run.redraw import open_decoder

CIRCLE, STAR = End(kind="class", value="circle"), End(kind="class", value="star")
PLAIN = Recipe(name="circle", start=CIRCLE, steps=2)


@pytest.fixture(scope="module")
def run(finished) -> Run:
    return Run.open(finished)


@pytest.fixture(scope="module")
def decoder(run) -> Decoder:
    return open_decoder(run, "cpu")


def cosine(a, b) -> float:
    return float(normalize(a, dim=0) @ normalize(b, dim=0))


def test_a_class_alone_is_its_vector(run, decoder):
    z = vector_of(PLAIN, run, decoder)
    assert z.norm().item() == pytest.approx(1)
    assert cosine(z, run.book.tokens_CD[0]) == pytest.approx(1)


def test_moves_follow_one_another(run, decoder):
    first, second = Move(toward=STAR, share=0.5), Move(seed=3, share=0.2)
    z = vector_of(replace(PLAIN, moves=(first, second)), run, decoder)
    half = slerp(run.book.tokens_CD[0], run.book.tokens_CD[2], 3)[1]
    assert cosine(z, half) == pytest.approx(math.cos(0.1 * math.pi), abs=1e-5)
    other = vector_of(replace(PLAIN, moves=(second, first)), run, decoder)
    assert not torch.allclose(z, other, atol=1e-3)


def test_between_two_ends_lies_the_arc(run, decoder):
    arc = slerp(run.book.tokens_CD[0], run.book.tokens_CD[2], 5)
    for i in range(5):
        z = vector_of(replace(PLAIN, moves=(Move(toward=STAR, share=i / 4),)), run, decoder)
        assert torch.allclose(z, arc[i], atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_move_goes_as_far_as_it_says_in_a_direction_of_its_seed(run, decoder, share):
    start = vector_of(PLAIN, run, decoder)
    moved = [
        vector_of(replace(PLAIN, moves=(Move(seed=seed, share=share),)), run, decoder) for seed in (1, 1, 2)
    ]
    assert cosine(start, moved[0]) == pytest.approx(math.cos(share * math.pi / 2), abs=1e-5)
    assert torch.equal(moved[0], moved[1])
    assert torch.allclose(moved[0], moved[2]) == (share == 0)


def test_a_row_and_a_word_are_ends(run, decoder):
    row = vector_of(replace(PLAIN, start=End(kind="row", value="5")), run, decoder)
    assert torch.allclose(row, run.vectors.z_MD[5], atol=1e-6)
    word = vector_of(replace(PLAIN, start=End(kind="word", value="red")), run, decoder)
    assert torch.allclose(word, decoder.words(["red"]).z_VD[0], atol=1e-6)


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (End(kind="class", value="boat"), "There is no class 'boat'"),
        (End(kind="row", value="24"), "There is no row '24': the run has 24 vectors"),
        (End(kind="row", value="-1"), "There is no row '-1'"),
        (End(kind="row", value="²"), "There is no row"),
        (End(kind="word", value="日本"), "日本"),
    ],
)
def test_what_there_is_not_is_named(run, decoder, end, sentence):
    with pytest.raises(ValueError, match=sentence):
        vector_of(replace(PLAIN, moves=(Move(toward=end, share=0.5),)), run, decoder)


def test_what_is_out_of_range_is_named():
    with pytest.raises(ConfigError, match="share"):
        Move(share=1.5)
    for change in ({"steps": 0}, {"guidance": -1.0}, {"seed": -1}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(PLAIN, **change)
    with pytest.raises(ConfigError, match="moves are at most 16"):
        replace(PLAIN, moves=(Move(share=0.1),) * 17)


def test_the_same_recipe_is_the_same_picture_and_another_seed_another(run, decoder):
    first, again, other = (draw(replace(PLAIN, seed=seed), run, decoder) for seed in (3, 3, 4))
    assert first.png == again.png != other.png
    assert Image.open(io.BytesIO(first.png)).size == (32, 32)
    fresh = draw(replace(PLAIN, seed=3), Run.open(run.folder.path), open_decoder(run, "cpu"))
    assert fresh.png == first.png
    assert first.facts["class"] == "circle"
    assert first.facts["cosine_to_class"] == pytest.approx(1)
    assert len(first.facts["words"]) == 3
    assert 0 < first.facts["knn_distance"] < 2


def test_steps_and_guidance_are_the_recipes(run, decoder):
    steps = []
    draw(replace(PLAIN, steps=5), run, decoder, lambda done, total: steps.append((done, total)))
    assert steps == [(i, 5) for i in range(1, 6)]
    plain, guided = (draw(replace(PLAIN, guidance=guidance), run, decoder) for guidance in (1.0, 9.0))
    assert plain.png != guided.png
    assert plain.facts["pipeline"] != guided.facts["pipeline"]


def test_a_drawing_of_a_row_of_the_run_is_the_runs_own_picture(run, decoder):
    """Its vector, seed and options are the run's; a tile of another size may change last bits."""
    c, m = run.config.decode, 4
    recipe = Recipe(
        name=run.provenance[m]["class"], start=End(kind="row", value=str(m)), steps=c.steps,
        guidance=c.guidance, seed=run.provenance[m]["seed"],
    )  # fmt: skip
    drawing = draw(recipe, run, decoder)
    pixels = torch.frombuffer(bytearray(Image.open(io.BytesIO(drawing.png)).tobytes()), dtype=torch.uint8)
    own = run.images.batch([m])[0].permute(1, 2, 0).flatten()
    assert (pixels.int() - own.int()).abs().max() <= 1
    assert drawing.facts["pipeline"] == run.provenance[m]["pipeline"]
    assert drawing.facts["knn_distance"] == pytest.approx(run.provenance[m]["knn_distance"], abs=1e-4)


def test_a_classifier_says_what_it_takes_a_drawing_for(run, decoder):
    drawing, classifier = draw(PLAIN, run, decoder), run.classifier("baseline", 0)
    answer = opinion(drawing.png, classifier)
    pixels = torch.frombuffer(bytearray(Image.open(io.BytesIO(drawing.png)).tobytes()), dtype=torch.uint8)
    logits = classifier.network(pixels.view(1, 32, 32, 3).permute(0, 3, 1, 2).float()).logits_BC[0]
    assert answer["likeliest"] == classifier.names[int(logits.argmax())]
    assert answer["score"] == pytest.approx(-logits.logsumexp(0).item(), abs=1e-3)
    assert answer["flagged"] == (answer["score"] > answer["threshold"])


def test_what_is_added_says_how_to_draw_it_again(finished, decoder, tmp_path):
    copy = Run.open(shutil.copytree(finished, tmp_path / "copy"))
    red = End(kind="word", value="red")
    recipe = replace(PLAIN, moves=(Move(toward=red, share=0.4), Move(seed=7, share=0.2)))
    drawing = draw(recipe, copy, decoder)
    line = add_drawing(drawing, copy)
    assert (copy.layout.added / line["file_name"]).read_bytes() == drawing.png
    assert line["recipe"]["moves"][1] == {"toward": None, "seed": 7, "share": 0.2}
    added = Run.open(Path(copy.folder.path)).added
    assert len(added) == 1
    assert torch.allclose(added.vectors[0], drawing.vector_D, atol=1e-6)
    assert added.lines[0]["way"] == way(recipe)
    assert way(recipe) == (
        "from the class “circle”, then 40 % of the way to the word “red”, "
        "then 20 % of a right angle off (direction 7)"
    )


def test_a_word_of_a_class_is_not_added(finished, decoder, tmp_path):
    copy = Run.open(shutil.copytree(finished, tmp_path / "copy"))
    drawing = draw(replace(PLAIN, start=End(kind="word", value="star")), copy, decoder)
    with pytest.raises(ValueError, match="The word 'star' shows the class 'star'"):
        add_drawing(drawing, copy)
    assert len(copy.added) == 0


def test_a_run_that_could_not_use_it_says_why(finished, decoder, tmp_path):
    run = Run.open(shutil.copytree(finished, tmp_path / "copy"))
    drawing = draw(PLAIN, run, decoder)
    regularize = replace(run.config.regularize, outliers="known")
    known = Run(run.folder.path, replace(run.config, regularize=regularize))
    with pytest.raises(ValueError, match=r"added: known images, .* stand in the place of imagined ones"):
        add_drawing(drawing, known)
    latents = Run(run.folder.path, replace(run.config, decode=replace(run.config.decode, output="latents")))
    with pytest.raises(ValueError, match="outliers are latents"):
        add_drawing(drawing, latents)


def test_words_are_offered_that_show_no_class(run, decoder):
    words = drawable_words(run, decoder)
    assert "red" in words
    assert not {"circle", "square", "star"} & set(words)
    assert class_shown("stars", run) == "star"
    assert class_shown("red", run) == ""
