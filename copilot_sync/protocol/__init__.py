"""The wire of GitHub Copilot Chat, a chapter a module.

==============  ============================================================
``requests``    what is sent: requests as values
``replies``     what comes back as one document: tokens, threads, messages
``events``      what answers a message: a stream, a document, or an error
``errors``      what a failure means: statuses and error events
``limits``      which limit a refusal speaks of, and how long it lasts
``untrusted``   a reply as it came, and safe ways to read parts of it
==============  ============================================================

GitHub does not document this API. What stands here was put together from the documentation of the
``GithubCopilot`` module and from public captures of the web client (April and September 2026).
Everything is a pure function: no socket, no clock, no randomness. The time is passed in if it matters.
Nothing from the wire is trusted: unknown fields are ignored, a missing one never crashes,
and reading raises only errors of the ``CopilotError`` family.

This module exports nothing. Import a name from its chapter.
"""
