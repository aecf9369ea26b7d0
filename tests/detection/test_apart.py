"""Sets that share files, or have images of two sizes, are found before their numbers are believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from oodream.data.builtin import digits
from oodream.data.folders import load_folder, load_ood
from oodream.data.images import ImageSet
from oodream.detection.apart import shared_pictures
from oodream.detection.evaluate import evaluate
from oodream.models.factory import backbone
from oodream.models.inference import Extractor


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    for i, image in enumerate(digits(16, 20).batch(range(20))):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02}.png")
    return folder


def near(folder: Path, size: int = 16) -> ImageSet:
    return ImageSet(name="near", group="near", images=load_ood(folder, size))


def test_files_in_two_sets_are_counted(shapes: Path) -> None:
    train, test = load_folder(shapes, 16)
    circles = load_ood(shapes / "circle", 16)
    assert shared_pictures([train, test]) == []
    of_train, of_test = (len({*circles.files} & {*images.files}) for images in (train, test))
    assert of_train > 0
    assert of_test > 0
    assert shared_pictures([train, test, circles]) == [
        f"{n} of the {len(circles)} images of circle are images of {images.name}, too: what is measured on "
        "them says nothing."
        for n, images in ((of_train, train), (of_test, test))
    ]


def test_measuring_on_what_was_learned_from_is_said(shapes: Path, digits_folder: Path) -> None:
    train, test = load_folder(shapes, 16)
    extractor, other = Extractor(backbone("resnet8", len(train.classes))), near(digits_folder)
    with pytest.warns(UserWarning, match="are images of"):
        evaluate(extractor, ["knn"], fit=train, test=train, ood=[other], resamples=0)
    with pytest.warns(UserWarning, match=f"of the {len(test)} images of near are images of"):
        evaluate(extractor, ["energy"], fit=train, test=test, ood=[near_of(test)], resamples=0)


def near_of(images) -> ImageSet:
    return ImageSet(name="near", group="near", images=images.as_ood("near"))


def test_what_learns_nothing_may_be_given_any_images(shapes: Path, digits_folder: Path, recwarn) -> None:
    _, test = load_folder(shapes, 16)
    extractor = Extractor(backbone("resnet8", len(test.classes)))
    evaluate(extractor, ["energy"], fit=test, test=test, ood=[near(digits_folder)], resamples=0)
    assert not [w for w in recwarn if "are images of" in str(w.message)]


def test_images_of_two_sizes_are_refused(shapes: Path, digits_folder: Path) -> None:
    train, test = load_folder(shapes, 16)
    extractor = Extractor(backbone("resnet8", len(train.classes)))
    with pytest.raises(ValueError, match=r"The images of .* are 24 pixels wide and those of .* 16"):
        evaluate(extractor, ["energy"], fit=train, test=test, ood=[near(digits_folder, 24)], resamples=0)
