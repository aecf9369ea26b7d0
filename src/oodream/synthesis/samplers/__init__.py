"""Samplers: features in, vectors out. One method, one file."""
