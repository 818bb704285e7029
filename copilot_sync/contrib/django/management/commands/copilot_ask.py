"""``manage.py copilot_ask "…"``: ask one question with the site's client and stream the answer to the terminal."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from copilot_sync.contrib.django.client import get_client
from copilot_sync.errors import CopilotError
from copilot_sync.terminal_text import one_line, write_pieces


class Command(BaseCommand):
    """Asks one question and prints the answer."""

    help = "Ask GitHub Copilot with this site's settings, and print the answer as it arrives."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument("prompt", help="The question.")
        parser.add_argument("--model", help="The model's id. Default: the site's.")
        parser.add_argument("--conversation", help="The id of a conversation to continue. Default: a new one.")

    def handle(self, *, prompt: str, model: Any, conversation: Any, **_: Any) -> None:
        """Ask the question and print the answer."""
        try:
            with get_client().stream(prompt, model=model, conversation=conversation) as stream:
                self.stdout.ending = ""
                write_pieces(stream, self.stdout)
                conversation_id = stream.conversation and one_line(stream.conversation.conversation_id)
                self.stderr.write(f"conversation {conversation_id}")
        except (CopilotError, ImproperlyConfigured, ValueError) as error:
            raise CommandError(one_line(str(error))) from error
