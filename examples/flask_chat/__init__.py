"""A chat in Flask."""
