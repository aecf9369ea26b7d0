"""The first half of the papers: class vectors, alignment, sampling, decoding, filters; training a decoder."""
