"""The gateway for many questions at once."""

from copilot_sync.contrib.openai_gateway import Gateway

application = Gateway(concurrency=200)
