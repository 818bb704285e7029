"""A chat in Django."""
