"""Pure mathematics on tensors: neighbours, metrics, uncertainty, calibration, paths between vectors."""
