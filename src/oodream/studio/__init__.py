"""The studio: a run's outliers looked at, chosen and tried in the browser."""
