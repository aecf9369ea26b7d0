"""Nouns, protocols, registry, seeding, files, processes, devices: no method and no stage."""
