"""What is done where memory gives out."""

from __future__ import annotations

import pytest
import torch

from oodream.cli.main import in_words
from oodream.core.memory import MemoryShort, advice, in_halves, out_of_memory

ROWS = torch.arange(11)


def doubled(most: int):
    def work(rows):
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * rows

    return work


def test_work_is_halved_until_memory_holds_it():
    with pytest.warns(UserWarning, match="does not hold 11 of the images: they are taken in halves"):
        assert in_halves(ROWS, doubled(3), "the images").tolist() == (2 * ROWS).tolist()
    with (
        pytest.warns(UserWarning, match="in halves"),
        pytest.raises(MemoryShort, match="does not hold one of the images"),
    ):
        in_halves(ROWS, doubled(0), "the images")


def test_other_errors_stay_what_they_are():
    def wrong(rows):
        raise RuntimeError("another fault")

    with pytest.raises(RuntimeError, match="another fault"):
        in_halves(ROWS, wrong, "the images")
    with pytest.raises(RuntimeError, match="another fault"), advice("training", "Lower the batch."):
        wrong(ROWS)
    assert not out_of_memory(RuntimeError("another fault"))
    assert in_words(RuntimeError("another fault")) == "another fault"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_memory_that_gives_out_says_what_to_do(error):
    assert out_of_memory(error)
    assert "Lower the batch" in in_words(error)
    with pytest.raises(
        MemoryShort, match=r"^train: memory gave out\. Lower it\. What is finished is kept\.$"
    ):
        try_with_advice(error)


def try_with_advice(error):
    with advice("train", "Lower it."):
        raise error
