"""gunicorn with threads: the plain choice."""

worker_class = "gthread"
workers = 2
# Each answer that is being streamed takes one thread to its end, so there are as
# many threads as answers at once.
threads = 100
# Connections that wait for a thread count too.
worker_connections = 1000
# A worker with threads goes on while an answer streams; this is for one that hangs
# altogether.
timeout = 60
# When it is told to end, it lets answers go on for so many seconds.
graceful_timeout = 30
