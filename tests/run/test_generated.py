"""Files of what is decoded: where they lie, which are missing, and what is in them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.core.distributed import Shard
from oodream.core.errors import DataError
from oodream.core.tensors import load_tensors
from oodream.core.types import ClassBook, Generated
from oodream.run.generated import SHARD, ImageFiles, LatentShards, latent_reader, slug
from tests.helpers.vectors import sampled

NAMES = ("red fox", "a/b", "..")


class Levels:
    """Every row's image has the level of its seed, and its latent, too."""

    tile = 4
    book = ClassBook(names=NAMES, prompts=NAMES, tokens_CD=torch.eye(3), space="s")

    def __call__(self, z_BD, y_B, seed_B):
        images = seed_B.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def latents(self, z_BD, y_B, seed_B):
        latents = seed_B.half()[:, None, None, None].expand(-1, 2, 3, 3)
        return Generated(latents_BFHW=latents, y_B=y_B, row_B=torch.arange(len(y_B)))


@pytest.mark.parametrize("image_format", ["png", "webp", "jpg"])
def test_images_lie_in_a_folder_for_each_class(tmp_path, image_format):
    files = ImageFiles(folder=tmp_path, vectors=sampled(11, 3), names=NAMES, format=image_format)
    names = [str(path.relative_to(tmp_path)) for path in files.paths]
    assert names[:4] == [f"{part}.{image_format}" for part in (
        "red_fox-0/000000", "a_b-1/000001", f"{hashlib.blake2b(b'..', digest_size=4).hexdigest()}-2/000002",
        "red_fox-0/000003",
    )]  # fmt: skip
    files.decode(Levels(), [9, 2])
    assert {path for path in files.paths if path.exists()} == {files.path(9), files.path(2)}
    assert np.unique(np.asarray(Image.open(files.path(9)))).tolist() == [63]


def test_what_is_missing_is_shared_in_blocks(tmp_path):
    files = ImageFiles(folder=tmp_path, vectors=sampled(11, 3), names=NAMES)
    assert files.missing(Shard(), Levels()) == list(range(11))
    assert files.missing(Shard(0, 2), Levels()) == [0, 1, 2, 3, 8, 9, 10]
    assert files.missing(Shard(1, 2), Levels()) == [4, 5, 6, 7]
    files.decode(Levels(), [5, 9])
    assert files.missing(Shard(), Levels()) == [0, 1, 2, 3, 4, 6, 7, 8, 10]


@pytest.mark.parametrize("kind", [ImageFiles, LatentShards])
def test_a_damaged_file_of_a_begun_stage_is_missing_again(kind, tmp_path):
    """No record has its hash yet; a PNG and a file of latents have checks of their own."""
    names = {"names": NAMES} if kind is ImageFiles else {}
    files = kind(folder=tmp_path, vectors=sampled(3, 3), **names)
    files.decode(Levels(), [0, 1, 2])
    assert files.missing(Shard(), Levels()) == []
    whole = files.paths[1].read_bytes()
    for data in (whole[:-1], whole[:40], b"", whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:]):
        files.paths[1].write_bytes(data)
        with pytest.warns(UserWarning, match="is damaged and made again"):
            assert 1 in files.missing(Shard(), Levels())


def test_rows_may_be_decoded_elsewhere(tmp_path):
    images = ImageFiles(folder=tmp_path / "run", vectors=sampled(5, 3), names=NAMES)
    latents = LatentShards(folder=tmp_path / "run", vectors=sampled(5, 3))
    for files in (images, latents):
        files.decode(Levels(), [4, 1], tmp_path / "out")
    names = ["000001.png", "000004.png", "latent-000001.safetensors", "latent-000004.safetensors"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    assert [images.alone(1), images.alone(4), latents.alone(1), latents.alone(4)] == names
    latent = load_tensors(tmp_path / "out" / latents.alone(4))
    assert latent["row_B"].tolist() == [4]
    assert latent["latents_BFHW"].unique().tolist() == [28]
    assert not (tmp_path / "run").exists()


def test_latents_lie_in_shards_and_are_read_by_row(tmp_path):
    n = SHARD + 5
    files = LatentShards(folder=tmp_path, vectors=sampled(n, 3))
    assert {path.name for path in files.paths} == {"latents-00000.safetensors", "latents-00001.safetensors"}
    assert files.missing(Shard(1, 2), Levels()) == list(range(SHARD, n))
    files.decode(Levels(), list(range(n)))
    assert files.missing(Shard(), Levels()) == []
    assert load_tensors(files.paths[-1])["row_B"].tolist() == list(range(SHARD, n))
    read = latent_reader([files.paths[0], files.paths[-1]])
    rows = torch.tensor([SHARD + 3, 0, 9])
    latents = read(rows)
    assert latents.shape == (3, 2, 3, 3)
    assert latents.dtype == torch.float16
    assert latents[:, 0, 0, 0].tolist() == sampled(n, 3).seed_M[rows].tolist()
    assert read(rows[:0]).shape == (0, 2, 3, 3)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("red  fox", "red_fox"), ("../../etc", "etc"), ("Gänse-Blume", "Gänse-Blume"), ("a.b", "a_b")],
)
def test_a_class_names_folder_stays_where_it_is(name, folder):
    assert slug(name) == folder


def test_images_that_are_missing_are_counted_and_named(tmp_path):
    files = ImageFiles(folder=tmp_path, vectors=sampled(60, 3), names=NAMES)
    files.decode(Levels(), [m for m in range(60) if m not in (4, 9)])
    with (
        pytest.warns(UserWarning, match=r"2 of 60 images cannot be read:\n.*000004\.png.*\n.*000009\.png"),
        pytest.raises(DataError, match=r"^2 of 60 images are missing or damaged in .* with: again$"),
    ):
        files.images("imagined", 4, "again")
