"""A run on disk: its folder and artifacts, its stages, the plan and the runner, and readers of runs."""
