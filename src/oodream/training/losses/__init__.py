"""Training losses. One method, one file; a loss owns its auxiliary networks."""
