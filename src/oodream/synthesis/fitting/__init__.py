"""The parts of a small Stable Diffusion and how each is trained; `fit_decoder` puts them together."""
