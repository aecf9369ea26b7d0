"""Filters: which generated images stay. One method, one file."""
