"""Applications to look at and to copy from. They are started from this folder's parent: ``python -m examples.flask_chat``."""
