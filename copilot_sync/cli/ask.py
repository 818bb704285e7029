"""``copilot-sync ask``: one question, its answer streamed to the terminal."""

import contextlib
import json
import os
import stat
import sys
from typing import Dict, Iterator, Optional

import click

from copilot_sync.client import Client
from copilot_sync.models import Answer

#: Seconds between two words of the embedded emulator, so that one sees the answer stream in.
_EMULATED_PACE = 0.05


@click.command(
    epilog="""\b
Examples:
  copilot-sync ask "Explain WSGI in one line"
  git diff | copilot-sync ask "Review this"
  copilot-sync ask --emulator --json "Hello"
"""
)
@click.argument("prompt", required=False)
@click.option("-m", "--model", metavar="ID", help="The model.  [default: COPILOT_SYNC_MODEL, else gpt-4o]")
@click.option("--conversation", metavar="ID", help="Go on with a conversation.  [default: a new one]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as one JSON object.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.  [default: as it comes]")
@click.option(
    "--emulator", "emulated", is_flag=True, help="Ask an emulator inside this process: no account, no network."
)
def ask(
    prompt: Optional[str],
    model: Optional[str],
    conversation: Optional[str],
    as_json: bool,
    no_stream: bool,
    emulated: bool,
) -> None:
    """Ask PROMPT and print the answer.

    Where stdin is a pipe or a file it is read too, and follows PROMPT after an empty line. PROMPT may be "-" or
    missing for stdin alone.
    """
    question = _question(prompt)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_emulated_client(stack) if emulated else _client())
        try:
            stream = stack.enter_context(client.stream(question, conversation=conversation, model=model))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if not (as_json or no_stream):
            _print_pieces(stream)
            return
        answer = client.ask(question, conversation=conversation, model=model)
        click.echo(_as_json(answer) if as_json else answer.text, nl=as_json or not answer.text.endswith("\n"))


def _client() -> Client:
    try:
        return Client()
    except (TypeError, ValueError) as error:
        raise click.ClickException(f"the environment is not right: {error}") from error


def _emulated_client(stack: contextlib.ExitStack) -> Client:
    from copilot_sync.emulator import Emulator, Reply

    # A proxy of the environment could not reach a server inside this process.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    emulator = stack.enter_context(Emulator(reply=Reply(pace=_EMULATED_PACE)))
    click.echo("copilot-sync: this is the emulator, which repeats what it is asked; no model is involved", err=True)
    return Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url)


def _question(prompt: Optional[str]) -> str:
    """Put the argument and stdin together."""
    parts = [] if prompt in (None, "-") else [str(prompt)]
    if not parts or _is_piped():
        parts.append(_stdin_text())
    question = "\n\n".join(part for part in parts if part.strip())
    if not question:
        raise click.UsageError("there is nothing to ask: give a PROMPT, or pipe one in")
    return question


def _is_piped() -> bool:
    """Whether stdin is a pipe, a socket or a file; a terminal and ``/dev/null`` are none."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _stdin_text() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError("stdin is not UTF-8 text") from error


def _print_pieces(pieces: Iterator[str]) -> None:
    """Print pieces as they come, and end the line also where the answer breaks off."""
    last = "\n"
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
            last = piece
    finally:
        if not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def _as_json(answer: Answer) -> str:
    usage: Optional[Dict[str, Optional[int]]] = None
    if answer.usage is not None:
        usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens}
    return json.dumps(
        {
            "text": answer.text,
            "conversation_id": answer.conversation.conversation_id,
            "message_id": answer.message_id,
            "model": answer.model,
            "usage": usage,
            "complete": answer.complete,
        },
        ensure_ascii=False,
    )
