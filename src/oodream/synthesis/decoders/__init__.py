"""Decoders: vectors in, images or latents out. One method, one file."""
