"""The words beside a vector."""

from __future__ import annotations

from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.names import known_to


def test_a_words_own_vector_is_nearest_to_it(tiny_pipeline, tiny_xl_pipeline):
    for folder in (tiny_pipeline, tiny_xl_pipeline):
        decoder = StableDecoder(str(folder), names=["circle", "star"])
        words, table = decoder.text.words()
        assert {"circle", "star", "red", "blue"} <= set(words)
        assert table.shape == (len(words), decoder.book.tokens_CD.shape[1])
        near = decoder.neighbours(decoder.book.tokens_CD * 3, 2)
        assert [row[0] for row in near] == ["circle", "star"]
        assert all(len(row) == 2 for row in near)


def test_the_nearest_words_are_no_pieces_of_words():
    """The embedded decoder's vocabulary holds ends of words, which read as words do: "dium" of stadium."""
    decoder = StableDecoder(names=["circle"])
    vocabulary, z_VD = decoder.text.words()
    pieces = [row for row, word in enumerate(vocabulary) if word in ("dium", "thouse", "ropod")]
    assert len(pieces) == 3
    near = decoder.neighbours(z_VD[pieces], 4)
    assert {name for row in near for name in row} <= known_to("embedded")
    changed = decoder.changed(steps=2, guidance=1.0, tile=1)
    assert changed.neighbours(decoder.book.tokens_CD, 1) == [["circle"]]
