"""``copilot-sync ask``: ask one question and stream the answer to the terminal."""

from typing import Optional, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend, report_usage_errors
from copilot_sync.cli.output import show_answer, show_json, show_references
from copilot_sync.cli.question import read_question, read_reference
from copilot_sync.prompts import prompt_text
from copilot_sync.safe_text import well_formed


@click.command(
    epilog="""\b
Examples:
  copilot-sync ask "Explain WSGI in one line"
  git diff | copilot-sync ask "Review this"
  copilot-sync ask --file app.py --file test_app.py "What is not tested?"
  copilot-sync ask --continue "And in Django?"
  copilot-sync ask --emulator --json "Hello"
"""
)
@click.argument("prompt", nargs=-1)
@options.model
@options.system
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Attach a text file of up to 1 MiB. Repeatable.",
)
@options.conversation
@options.go_on
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as one JSON object.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.  [default: stream it]")
@options.raw
@options.emulated
def ask(
    prompt: Tuple[str, ...],
    model: Optional[str],
    system: Optional[str],
    files: Tuple[str, ...],
    conversation: Optional[str],
    go_on: bool,
    as_json: bool,
    no_stream: bool,
    raw: bool,
    emulated: bool,
) -> None:
    """Ask PROMPT and print the answer.

    If stdin is a pipe or a file, its text follows PROMPT after an empty line. Omit PROMPT, or use "-", to send
    stdin alone.
    """
    question = read_question(prompt)
    references = [read_reference(path) for path in files]
    with open_backend(emulated) as backend:
        known = backend.conversation(conversation, go_on)
        with report_usage_errors():
            stream = backend.client.stream(
                prompt_text(question, well_formed(system or ""), is_new=known is None),
                model=model,
                conversation=known,
                references=references,
                buffered=no_stream or as_json,
                on_start=backend.last_conversation.save,
                on_discard=backend.last_conversation.discard,
            )
        with stream:
            if not as_json:
                show_answer(stream, raw)
            answer = stream.read()
        if as_json:
            show_json(answer.to_dict())
        else:
            show_references(answer.references)
        backend.last_conversation.save(answer.conversation)  # this time with the id of its last message
