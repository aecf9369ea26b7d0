"""Filters: which generated images stay. One method, one file."""

from __future__ import annotations
