"""What a failure means, how long everybody waits then, how many requests go at once and how often.

``policy`` judges failures, ``backoff`` waits between the attempts of one call, ``cooldown`` holds back all calls of an
account, and ``limiter`` bounds the prompts of a batch. Nothing here sends anything.
"""
