"""A run on disk: its folder and artifacts, its stages, the plan and the runner, and what reads finished runs."""
