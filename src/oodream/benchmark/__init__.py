"""A network on a published protocol: its files, its image sets, its tables."""
