"""The words beside a vector."""

from __future__ import annotations

from oodream.synthesis.decoders.stable import StableDecoder


def test_a_words_own_vector_is_nearest_to_it(tiny_pipeline, tiny_xl_pipeline):
    for folder in (tiny_pipeline, tiny_xl_pipeline):
        decoder = StableDecoder(str(folder), names=["circle", "star"])
        words, table = decoder.text.words()
        assert {"circle", "star", "red", "blue"} <= set(words)
        assert table.shape == (len(words), decoder.book.tokens_CD.shape[1])
        near = decoder.text.neighbours(decoder.book.tokens_CD * 3, 2)
        assert [row[0] for row in near] == ["circle", "star"]
        assert all(len(row) == 2 for row in near)
