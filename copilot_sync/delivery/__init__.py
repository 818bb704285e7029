"""One message on its way: sent, its answer read, and found again after a failure."""
