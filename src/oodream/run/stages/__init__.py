"""The bodies of the stages: from artifacts of a run to files in a stage's folder."""
