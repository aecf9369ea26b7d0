"""oodream: image classifiers that learn to say "I don't know", from outliers imagined by a diffusion model."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("oodream")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"
