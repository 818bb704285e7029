"""A Celery application with one client, which is made and warm before the worker forks its processes."""

import os
import time
from typing import Any, Dict

import celery
from celery.exceptions import SoftTimeLimitExceeded

import copilot_sync

app = celery.Celery("celery_program", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
client = copilot_sync.Client()
client.ask("main is warm")


@app.task(name="ask")
def ask(text: str) -> Dict[str, Any]:
    """Ask, the process id in front of the text, and say whether all was right."""
    prompt = f"{os.getpid()} {text}"
    answer = client.ask(prompt)
    listed = client.messages(answer.conversation)
    right = answer.text == prompt and [message.content for message in listed] == [prompt, prompt]
    return {"pid": os.getpid(), "right": right}


class SlowCache:
    """A token cache that takes longer than any task may."""

    def get(self, key: str) -> None:
        time.sleep(600)

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep nothing."""


clients = {"client": client, "client with a slow cache": copilot_sync.Client(token_cache=SlowCache())}


@app.task(name="limited", soft_time_limit=1)
def limited(name: str) -> Dict[str, Any]:
    """Ask something that takes longer than Celery allows."""
    try:
        clients[name].ask(f"{os.getpid()} asks for too much")
    except SoftTimeLimitExceeded:
        return {"pid": os.getpid(), "limited": True}
    return {"pid": os.getpid(), "limited": False}
