"""gunicorn with gevent: thousands of slow answers in one process."""

from gevent import monkey

# Before anything of the application is imported, so that also --preload works.
monkey.patch_all()

worker_class = "gevent"
workers = 2
# Answers that may be streamed at once, in each worker.
worker_connections = 1000
timeout = 60
graceful_timeout = 30
