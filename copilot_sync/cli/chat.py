"""``copilot-sync chat``: a conversation, question by question, typed in a terminal or read from a pipe.

Ctrl-C stops the answer, or drops the line that is being typed; Ctrl-D ends the chat. From a pipe each line is a
question, the first failure ends it all, and so does Ctrl-C.
"""

import os
import re
import sys
from typing import Callable, Dict, List, NamedTuple, Optional

import click

from copilot_sync.cli import options
from copilot_sync.cli.failures import in_words
from copilot_sync.cli.folders import state_folder
from copilot_sync.cli.line_input import QUOTES, Entry, History, Keyboard, ReadLine, piped_line, read_entry
from copilot_sync.cli.output import show_answer
from copilot_sync.cli.service import Service, connected
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.errors import CopilotError
from copilot_sync.models import Conversation
from copilot_sync.prompts import prompt_text
from copilot_sync.safe_text import well_formed
from copilot_sync.settings import MODEL, Environment
from copilot_sync.stream import Stream
from copilot_sync.terminal_text import one_line

_HELP = f"""\
/model [ID]   show the model, or go on with another one
/new          begin a new conversation
/save FILE    write this conversation to a file, as Markdown
/help         show this
/quit         end the chat, as Ctrl-D does

{QUOTES} opens a block of several lines, and {QUOTES} at the end of a line closes it.
Ctrl-C stops an answer, or drops what is being typed."""

#: A command is a word of its own: a question may begin with /etc/hosts.
_COMMAND = re.compile(r"/(\w+)(?:\s+(.*))?$")


@click.command(
    epilog="""\b
Examples:
  copilot-sync chat
  copilot-sync chat --continue --model o1-mini
  copilot-sync chat --system "Answer in French" < questions.txt
"""
)
@options.model
@options.system
@options.conversation
@options.go_on
@options.raw
@options.emulated
def chat(
    model: Optional[str], system: Optional[str], conversation: Optional[str], go_on: bool, raw: bool, emulated: bool
) -> None:
    """Hold a conversation.

    Each line is a question; \"\"\" opens a block of several lines, and \"\"\" at the end of a line closes it. Type
    /help for the commands, Ctrl-C to stop an answer, Ctrl-D to end.
    """
    model = model or Environment.read().model or MODEL
    with connected(emulated) as service:
        session = _Session(service, service.conversation(conversation, go_on), model, system, raw)
        try:
            session.run()
        finally:
            session.show_end()


class _ChatTurn(NamedTuple):
    role: str
    text: str


class _Session:
    """One chat from its first line to its last."""

    def __init__(
        self, service: Service, conversation: Optional[Conversation], model: str, system: Optional[str], raw: bool
    ) -> None:
        self._service = service
        self._conversation = conversation
        self._model = model
        self._system = system
        self._unsaid = system  # the instructions, as long as this conversation does not know them
        self._raw = raw
        self._is_typed = is_terminal(sys.stdin)
        self._turns: List[_ChatTurn] = []
        self._saved: List[str] = []

    def run(self) -> None:
        """Take questions and commands until the end of input."""
        read_line = self._reader()
        while True:
            try:
                entry = read_entry(read_line)
                if entry is None or not self._take(entry):
                    return
            except KeyboardInterrupt:
                if not self._is_typed:
                    raise
                _note("\n(Ctrl-D or /quit ends the chat)")

    def show_end(self) -> None:
        """Print the conversation's id, with which it can be taken up again."""
        if self._conversation is not None:
            _note(f"conversation {one_line(self._conversation.conversation_id)}")

    def _reader(self) -> ReadLine:
        if not self._is_typed:
            return piped_line
        _note(f"{self._model}: ask, or type /help; Ctrl-D ends")
        return Keyboard(History(os.path.join(state_folder(), "chat-history"))).line

    def _take(self, entry: Entry) -> bool:
        """Do what was entered; ``False`` ends the chat."""
        command = None if entry.is_block else _COMMAND.match(entry.text.strip())
        if command:
            return self._obey(command.group(1), (command.group(2) or "").strip())
        if entry.text.strip():
            self._ask(entry.text)
        return True

    # Questions

    def _ask(self, question: str) -> None:
        stream = self._service.client.stream(
            prompt_text(question, well_formed(self._unsaid or ""), is_new=self._conversation is None),
            conversation=self._conversation,
            model=self._model,
            on_start=self._started,
        )
        try:
            with stream:
                show_answer(stream, self._raw)
        except KeyboardInterrupt:
            if not self._is_typed:
                raise
            _note("(stopped)")
        except CopilotError as error:
            if not self._is_typed:
                raise
            _note(f"Error: {in_words(error, click.get_current_context().find_root().ensure_object(dict))}")
        finally:
            self._keep(question, stream)

    def _started(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._service.last.save(conversation)

    def _keep(self, question: str, stream: Stream) -> None:
        """Keep what was said, and the conversation with the id of its last message."""
        if stream.text or stream.answer:
            self._unsaid = None
            self._turns += [_ChatTurn("user", question), _ChatTurn("assistant", stream.text)]
        if self._conversation is not None:
            self._service.last.save(self._conversation)

    # Commands

    def _obey(self, name: str, argument: str) -> bool:
        if name in ("quit", "exit"):
            return False
        commands: Dict[str, Callable[[str], None]] = {
            "help": lambda _: _note(_HELP),
            "model": self._choose_model,
            "new": self._begin_anew,
            "save": self._save,
        }
        if name in commands:
            commands[name](argument)
        else:
            _note(f"there is no command /{name}; /help shows those that there are")
        return True

    def _choose_model(self, identifier: str) -> None:
        self._model = identifier or self._model
        _note(f"the model is {self._model}")

    def _begin_anew(self, _: str) -> None:
        self.show_end()
        self._conversation = None
        self._unsaid = self._system
        self._turns = []
        _note("a new conversation begins")

    def _save(self, name: str) -> None:
        path = os.path.expanduser(name)
        if not name:
            _note("/save needs the name of a file")
            return
        if os.path.exists(path) and path not in self._saved:
            _note(f"{name} is there already and was left as it is")
            return
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(f"## {turn.role}\n\n{turn.text.strip()}\n" for turn in self._turns))
        except OSError as error:
            _note(f"{name} can't be written: {error.strerror}")
            return
        self._saved.append(path)
        _note(f"saved to {name}")


def _note(text: str) -> None:
    click.echo(text, err=True)
