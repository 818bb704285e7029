"""Thin modules for other people's programs: one for each, importable on its own, each with its own extra."""
