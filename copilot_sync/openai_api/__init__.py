"""The shapes of OpenAI's API: what requests for chat completions say, completions, and errors. Pure.

Whoever answers in these shapes reads and writes them here: the gateway, which answers at once, and batches.
"""
