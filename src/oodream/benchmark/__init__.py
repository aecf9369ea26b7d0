"""A network on a published protocol: which files, which sets, which tables."""
