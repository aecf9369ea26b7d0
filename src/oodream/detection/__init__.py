"""Post-hoc detectors, their evaluation on image sets, and the choice of their options."""
