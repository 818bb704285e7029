"""``copilot-sync ask``: one question, its answer streamed to the terminal."""

from typing import Optional, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.output import show_answer, show_json
from copilot_sync.cli.question import question_of, reference_of
from copilot_sync.cli.service import connected, usage_checked
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
    help="Add a text file, 1 MiB at most. Repeatable.",
)
@options.conversation
@options.go_on
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as one JSON object.")
@click.option("--no-stream", is_flag=True, help="Print the answer in one piece.  [default: as it comes]")
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

    If stdin is a pipe or a file, it is read too, and follows PROMPT after an empty line. PROMPT may be "-" or
    missing for stdin alone.
    """
    question = question_of(prompt)
    references = [reference_of(path) for path in files]
    with connected(emulated) as service:
        known = service.conversation(conversation, go_on)
        with usage_checked():
            stream = service.client.stream(
                prompt_text(question, well_formed(system or ""), is_new=known is None),
                model=model,
                conversation=known,
                references=references,
                buffered=no_stream or as_json,
                on_start=service.last.save,
            )
        with stream:
            if not as_json:
                show_answer(stream, raw)
            answer = stream.read()
        if as_json:
            show_json(answer.to_dict())
        service.last.save(answer.conversation)  # now with the id of its last message
