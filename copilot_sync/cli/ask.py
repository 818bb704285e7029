"""``copilot-sync ask``: ask one question and stream the answer to the terminal."""

import contextlib
from typing import Any, Dict, Optional, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend, play_demo, read_proxy, report_usage_errors
from copilot_sync.cli.language import _
from copilot_sync.cli.output import show_answer, show_data, show_json, show_references
from copilot_sync.cli.question import read_attachments, read_question, with_images
from copilot_sync.cli.schemas import read_expectation
from copilot_sync.cli.waiting import AwaitedAnswer
from copilot_sync.safe_text import well_formed
from copilot_sync.settings import Timeout


@click.command(
    epilog="""\b
Examples:
  copilot-sync ask "Explain WSGI in one line"
  git diff | copilot-sync ask "Review this"
  copilot-sync ask --file app.py --file test_app.py "What is not tested?"
  copilot-sync ask --continue "And in Django?"
  copilot-sync ask --schema "name, born int" "Who was Ada Lovelace?"
  copilot-sync ask --emulator --json "Hello"
"""
)
@click.argument("prompt", nargs=-1)
@options.model
@options.system
@options.files
@options.images
@options.conversation
@options.go_on
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as one JSON object.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.  [default: stream it]")
@options.raw
@options.schema
@options.repairs
@options.label
@options.timeout
@options.proxy
@options.emulated
def ask(
    prompt: Tuple[str, ...],
    model: Optional[str],
    system: Optional[str],
    files: Tuple[str, ...],
    images: Tuple[str, ...],
    conversation: Optional[str],
    go_on: bool,
    as_json: bool,
    no_stream: bool,
    raw: bool,
    schema: Optional[str],
    repairs: Optional[int],
    label: Optional[str],
    timeout: Optional[float],
    proxy: Optional[str],
    emulated: bool,
) -> None:
    """Ask PROMPT and print the answer.

    If stdin is a pipe or a file, its text follows PROMPT after an empty line. Omit PROMPT, or use "-", to send
    stdin alone. With --schema, the answer is JSON that fits it.
    """
    question = with_images(read_question(prompt), images)
    attachments = read_attachments(files)
    if repairs is not None and schema is None:
        raise click.UsageError(_("--repairs is for answers that have to fit: add --schema, or omit it"))
    expected = read_expectation(schema, repairs, emulated=emulated)
    judged: Dict[str, Any] = {} if expected is None else {"expected": expected}  # as ``asking`` makes it
    awaited = AwaitedAnswer()
    proxy = None if emulated else read_proxy(proxy)
    with open_backend(emulated, prepare=play_demo, proxy=proxy, hooks=awaited.note) as backend:
        known = backend.conversation(conversation, go_on)
        with report_usage_errors():
            stream = backend.client.stream(
                question,
                model=model,
                system=well_formed(system or ""),
                files=attachments,
                conversation=known,
                label=label,
                timeout=None if timeout is None else Timeout(total=timeout),
                buffered=no_stream or as_json,
                on_start=backend.last_conversation.save,
                on_discard=backend.last_conversation.discard,
                **judged,
            )
        with stream:
            if not as_json and expected is None:
                show_answer(stream, raw, backend.waits)
            with backend.waits.otherwise(awaited.words) if expected else contextlib.nullcontext():
                answer = stream.read()
        if as_json:
            show_json(answer.to_dict())
        elif expected is not None:
            show_data(answer.to_dict()["parsed"])
        else:
            show_references(answer.references)
        backend.last_conversation.save(answer.conversation)  # this time with the id of its last message
