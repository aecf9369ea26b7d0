"""run.stages."""
