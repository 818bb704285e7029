"""What is typed from the pages of the documentation. It needs what their examples need: ``tox -e docs`` runs it."""
