"""Thin adapters for other programs. Each can be imported on its own, and has its own extra."""
