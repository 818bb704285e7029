"""Applications to look at and to copy from, started from the folder above: ``python -m examples.flask_chat``."""
