"""A Celery application whose workers ask prompts for others, as ``app.conf`` says."""

import os

import celery

import copilot_sync.contrib.celery  # noqa: F401 - has the task

app = celery.Celery("celery_batch", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
