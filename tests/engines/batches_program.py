"""A gateway with a folder for batches, which the processes of a server share."""

import os

from copilot_sync.contrib.openai_gateway import Gateway

application = Gateway(batches=os.environ["BATCHES"], concurrency=3)
