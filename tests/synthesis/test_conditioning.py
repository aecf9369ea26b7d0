"""Two text encoders as one, against diffusers."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from oodream.synthesis.decoders.stable import StableDecoder
from tests.helpers.vectors import unit


def test_xl_splice_equals_overwriting_both_tables(tiny_xl_pipeline):
    """The oracle is diffusers' own `encode_prompt` on a pipeline whose two tables have the class word's rows
    overwritten.
    """
    decoder = StableDecoder(str(tiny_xl_pipeline), names=["circle", "star"], tile=2)
    assert decoder.book.tokens_CD.shape == (2, 24 + 40)
    z, pipe = unit(2, 64), decoder.pipeline
    conditioning = decoder.text.splice(z, torch.tensor([0, 1]))
    for c, name in enumerate(decoder.book.names):
        for tokenizer, encoder, part in (
            (pipe.tokenizer, pipe.text_encoder, slice(0, 24)),
            (pipe.tokenizer_2, pipe.text_encoder_2, slice(24, 64)),
        ):
            (token,) = tokenizer(name, add_special_tokens=False).input_ids
            with torch.no_grad():
                row = encoder.get_input_embeddings().weight[token]
                row.copy_(normalize(z[c, part], dim=0) * row.norm())
        states, _, pooled, _ = pipe.encode_prompt(decoder.book.prompts[c], do_classifier_free_guidance=False)
        torch.testing.assert_close(conditioning.states_BLD[c], states[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(conditioning.pooled_BP[c], pooled[0], atol=1e-5, rtol=1e-4)
