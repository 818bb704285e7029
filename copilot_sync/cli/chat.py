"""``copilot-sync chat``: a conversation whose questions are typed in a terminal or read from a pipe.

In a terminal, Ctrl-C stops the answer or discards the line that is being typed, and Ctrl-D ends the chat. From a pipe,
each line is a question, and the first failure or Ctrl-C ends the program.

Threads: a chat is confined to the main thread. The one that names it shares nothing with it.
"""

import os
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, TextIO

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import Backend, open_backend, play_demo
from copilot_sync.cli.clipboard import copy_to_clipboard
from copilot_sync.cli.failures import describe_error
from copilot_sync.cli.language import _, marked
from copilot_sync.cli.line_input import QUOTES, Entry, History, Keyboard, ReadLine, piped_line, plain_line, read_entry
from copilot_sync.cli.output import ago, author_of, markdown_of, show_answer, show_heading
from copilot_sync.cli.question import read_attachments
from copilot_sync.cli.terminal import editing_screen, is_terminal
from copilot_sync.errors import CopilotError
from copilot_sync.inline_files import NamedText
from copilot_sync.message_tree import newest_branch
from copilot_sync.models import Conversation
from copilot_sync.naming import ThreadNaming
from copilot_sync.os_threads import JOIN_TIMEOUT
from copilot_sync.safe_text import well_formed
from copilot_sync.stream import Stream
from copilot_sync.terminal_text import one_line
from copilot_sync.user_folders import state_folder

if TYPE_CHECKING:
    from copilot_sync.cli.line_editor import LineEditor

_HELP = marked("""\
/model [ID]   show the model, or switch to another one
/retry [ID]   ask the last question again, perhaps another model
/edit [TEXT]  ask TEXT, or what is typed next, in place of the last question
/file PATH    attach a text file to the next question
/new          start a new conversation
/system TEXT  start a new conversation with these instructions
/list [TEXT]  show the conversations that have TEXT in their names
/resume ID    go on with another conversation; the first characters of its id will do
/copy         put the last answer into the clipboard of the terminal
/save FILE    write this conversation to a file, as Markdown
/help         show this
/quit         end the chat, like Ctrl-D

{quotes} opens a block of several lines, and {quotes} at the end of a line closes it.
Ctrl-C stops an answer, or discards what is being typed.""")

#: How many conversations ``/list`` shows.
_LISTED = 20
#: A command is a single word: a question may begin with /etc/hosts.
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
@options.label
@options.emulated
def chat(
    model: Optional[str],
    system: Optional[str],
    conversation: Optional[str],
    go_on: bool,
    raw: bool,
    label: Optional[str],
    emulated: bool,
) -> None:
    """Hold a conversation.

    Each line is a question; \"\"\" opens a block of several lines, and \"\"\" at the end of a line closes it. Type
    /help for the commands, Ctrl-C to stop an answer, Ctrl-D to end.
    """
    with open_backend(emulated, prepare=play_demo) as backend:
        known = backend.conversation(conversation, go_on)
        loop = _ChatLoop(backend, known, model or backend.model, system, raw, label)
        try:
            loop.run()
        finally:
            loop.show_end()
            loop.close()


class _ChatTurn(NamedTuple):
    """A question and its answer, as far as it came."""

    question: str
    answer: str
    is_whole: bool

    def to_markdown(self) -> str:
        return "\n".join((markdown_of("user", self.question), markdown_of("assistant", self.answer)))


class _ChatLoop:
    """Runs one chat."""

    def __init__(
        self,
        backend: Backend,
        conversation: Optional[Conversation],
        model: str,
        system: Optional[str],
        raw: bool,
        label: Optional[str] = None,
    ) -> None:
        self._backend = backend
        self._system = well_formed(system or "")
        self._chat = backend.client.chat(conversation, system=self._system)
        self._model = model
        self._is_editing = False  # whether the next question takes the place of the last one
        self._line_editor: Optional[LineEditor] = None
        self._raw = raw
        self._is_interactive = is_terminal(sys.stdin)
        self._is_nameless = conversation is None  # and the service was not asked for a name yet
        self._naming: Optional[_BackgroundNaming] = None
        self._turns: List[_ChatTurn] = []
        self._last_answer = ""  # that was shown, of this conversation
        self._files: List[NamedText] = []  # they go with the next question
        self._saved: List[str] = []
        last = backend.last_conversation
        self._options: Dict[str, Any] = {"on_start": last.save, "on_discard": last.discard, "label": label}

    def run(self) -> None:
        """Read questions and commands until the end of input, and act on them."""
        read_line = self._reader()
        was_interrupted = False
        while True:
            try:
                if was_interrupted:
                    self._is_editing = False
                    _note("\n" + _("(Ctrl-D or /quit ends the chat)"))
                    was_interrupted = False
                with self._backend.waits.hidden():  # those of what runs in the background
                    entry = read_entry(read_line)
                if entry is None or not self._handle(entry):
                    return
            except KeyboardInterrupt:
                if not self._is_interactive:
                    raise
                was_interrupted = True  # and no more here, for the key may be pressed again

    def show_end(self) -> None:
        """Print the conversation's id, with which it can be continued."""
        if self._chat.conversation is not None:
            _note(_("conversation {id}"), id=one_line(self._chat.conversation.conversation_id))

    def close(self) -> None:
        """End what still runs in the background."""
        if self._naming is not None:
            self._naming.close()
            self._naming = None

    def _reader(self) -> ReadLine:
        if not self._is_interactive:
            return piped_line
        _note(_("{model}: ask, or type /help; Ctrl-D ends"), model=self._model)
        history = History(os.path.join(state_folder(), "chat-history"))
        screen = editing_screen()
        self._line_editor = None if screen is None else self._editor(screen, history.load())
        return Keyboard(history, plain_line if self._line_editor is None else self._line_editor.line).line

    def _editor(self, screen: TextIO, lines: Sequence[str]) -> "LineEditor":
        # It loads prompt_toolkit, which takes time.
        from copilot_sync.cli.line_editor import CommandCompleter, FetchedWords, LineEditor, PathCompleter

        client = self._backend.client
        files = PathCompleter(expanduser=True)
        models = FetchedWords(lambda: [(model.id, one_line(model.name)) for model in client.models()])
        threads = FetchedWords(lambda: [(thread.id, one_line(thread.name)) for thread in client.threads()])
        arguments = {"model": models, "retry": models, "resume": threads, "file": files, "save": files}
        commands = {f"/{name}": arguments.get(name) for name in self._commands()}
        return LineEditor(sys.stdin, screen, lines, CommandCompleter(commands))

    def _handle(self, entry: Entry) -> bool:
        """Ask a question or run a command. Return ``False`` to end the chat."""
        command = None if entry.is_block else _COMMAND.match(entry.text.strip())
        if command:
            return self._run_command(command.group(1), (command.group(2) or "").strip())
        if self._is_editing:
            self._edit(entry.text)
        elif entry.text.strip():
            self._ask(entry.text)
        return True

    def _ask(self, question: str) -> None:
        stream = self._chat.stream(question, model=self._model, **self._taken_files(), **self._options)
        self._answer(question, stream)

    def _retry(self, model: str) -> None:
        """Ask the last question again, of the model that is named or else of the one of the chat."""
        self._is_editing = False
        stream = self._in_place(lambda: self._chat.stream_retry(model or self._model, **self._options))
        if stream is not None:
            self._answer(self._last_question(), stream, in_place=True)

    def _last_question(self) -> str:
        return self._turns[-1].question if self._turns else self._chat.question or ""

    def _begin_edit(self, question: str) -> None:
        """Ask another question in the place of the last one. Without one, the next line or block is it."""
        if question:
            self._edit(question)
        elif self._chat.conversation is None and self._chat.question is None:
            _note(_("there is no question yet that could be edited"))
        else:
            self._is_editing = True
            if self._line_editor is not None:
                self._line_editor.offer(self._last_question())
            _note(_("the next question takes the place of the last one; an empty line keeps that as it is"))

    def _edit(self, question: str) -> None:
        self._is_editing = False
        if not question.strip():
            _note(_("nothing was changed"))
            return
        options = {**self._taken_files(), **self._options}
        stream = self._in_place(lambda: self._chat.stream_edit(question, model=self._model, **options))
        if stream is not None:
            self._answer(question, stream, in_place=True)

    def _taken_files(self) -> Dict[str, Any]:
        files, self._files = self._files, []
        return {"files": files} if files else {}

    def _in_place(self, make_stream: Callable[[], Stream]) -> Optional[Stream]:
        """Return the stream of a question that takes the place of the last one; ``None`` if that can't be done."""
        try:
            return make_stream()
        except ValueError as error:
            _note(str(error))
        except CopilotError as error:
            self._report(error)
        return None

    def _answer(self, question: str, stream: Stream, *, in_place: bool = False) -> None:
        """Show an answer while it comes, and record it."""
        try:
            with stream:
                show_answer(stream, self._raw, self._backend.waits)
        except KeyboardInterrupt:
            if not self._is_interactive:
                raise
            _note(_("(stopped)"))
        except CopilotError as error:
            self._report(error)
        finally:
            self._record(_ChatTurn(question, stream.text, stream.answer is not None), in_place)
        self._name(stream)

    def _report(self, error: CopilotError) -> None:
        """Show an error to somebody who can go on; in a pipe it ends the program."""
        if not self._is_interactive:
            raise error
        _note(_("Error: {message}"), message=describe_error(error, _flags()))

    def _record(self, turn: _ChatTurn, in_place: bool) -> None:
        """Add a turn to the transcript, and save the conversation with its last message.

        A turn in the place of the last one replaces it, unless that had a whole answer and this one has not: then the
        conversation goes on from that answer.
        """
        self._last_answer = turn.answer or self._last_answer
        last = self._turns.pop() if in_place and self._turns else None
        self._turns.append(last if last is not None and last.is_whole and not turn.is_whole else turn)
        if self._chat.conversation is not None:
            self._backend.last_conversation.save(self._chat.conversation)

    def _name(self, stream: Stream) -> None:
        """Let the service name a new conversation after its first whole answer, while the next question is typed."""
        if self._is_interactive and self._is_nameless:
            naming = stream.naming()
            if naming is not None:
                self._is_nameless = False
                self.close()  # the conversation before this one may still be waiting for its name
                self._naming = _BackgroundNaming(naming)

    def _commands(self) -> Dict[str, Optional[Callable[[str], None]]]:
        """Return what each command does with its argument; ``None`` for those that end the chat."""
        return {
            "help": lambda _argument: _note(_(_HELP), quotes=QUOTES),
            "model": self._choose_model,
            "retry": self._retry,
            "edit": self._begin_edit,
            "file": self._attach,
            "new": self._start_new,
            "system": self._instruct,
            "list": self._list,
            "resume": self._resume,
            "copy": self._copy,
            "save": self._save,
            "quit": None,
            "exit": None,
        }

    def _run_command(self, name: str, argument: str) -> bool:
        commands = self._commands()
        if name not in commands:
            _note(_("there is no command /{name}; /help shows those that there are"), name=name)
            return True
        command = commands[name]
        if command is not None:
            command(argument)
        return command is not None

    def _choose_model(self, identifier: str) -> None:
        self._model = identifier or self._model
        _note(_("the model is {model}"), model=self._model)

    def _start_new(self, _argument: str) -> None:
        self._go_to(None)
        _note(_("a new conversation begins"))

    def _go_to(self, conversation: Optional[Conversation]) -> None:
        """Leave the conversation for another one, or for a new one, which gets the instructions."""
        self.show_end()
        self._chat = self._backend.client.chat(conversation, system=self._system if conversation is None else None)
        self._is_editing = False
        self._is_nameless = conversation is None
        self._turns = []
        self._last_answer = ""

    def _attach(self, name: str) -> None:
        if not name:
            _note(_("{command} needs the name of a file"), command="/file")
            return
        try:
            self._files += read_attachments([os.path.expanduser(name)])
        except click.UsageError as error:
            _note(error.message)
        else:
            _note(_("{file} goes with the next question"), file=name)

    def _instruct(self, text: str) -> None:
        if text:
            self._system = well_formed(text)
            self._start_new("")
        else:
            system = one_line(self._system)
            _note(_("the instructions are: {system}") if system else _("there are no instructions"), system=system)

    def _list(self, text: str) -> None:
        try:
            found = self._backend.threads_named(text)
        except CopilotError as error:
            self._report(error)
            return
        for thread in found[:_LISTED]:
            _note(f"{one_line(thread.id)[:8]}  {ago(thread.updated_at)}  {one_line(thread.name)}")
        if len(found) > _LISTED:
            _note(_("and {count} more"), count=len(found) - _LISTED)
        elif not found:
            _note(_("there is no such conversation"))

    def _resume(self, identifier: str) -> None:
        if not identifier:
            _note(_("/resume needs the id of a conversation; /list shows them"))
            return
        try:
            conversation = Conversation(self._backend.full_ids([identifier])[0])
            messages = newest_branch(self._backend.client.messages(conversation))
        except click.UsageError as error:
            _note(error.message)
        except CopilotError as error:
            self._report(error)
        else:
            self._go_to(conversation)
            self._backend.last_conversation.save(conversation)
            for message in messages[-2:]:
                show_heading(f"{author_of(message.role)}:")
                show_answer([message.content], self._raw)
                self._last_answer = message.content if message.role == "assistant" else ""
            _note(_("going on with {id}"), id=one_line(conversation.conversation_id))

    def _copy(self, _argument: str) -> None:
        answer = self._last_answer
        _note(copy_to_clipboard(answer) if answer else _("there is no answer yet that could be copied"))

    def _save(self, name: str) -> None:
        path = os.path.expanduser(name)
        if not name:
            _note(_("{command} needs the name of a file"), command="/save")
            return
        if os.path.exists(path) and path not in self._saved:
            _note(_("{file} is there already and was left as it is"), file=name)
            return
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(turn.to_markdown() for turn in self._turns if turn.answer or turn.is_whole))
        except OSError as error:
            _note(_("{file} can't be written: {reason}"), file=name, reason=error.strerror)
            return
        self._saved.append(path)
        _note(_("saved to {file}"), file=name)


class _BackgroundNaming:
    """Runs a naming in a thread, and ends it when it is closed."""

    def __init__(self, naming: ThreadNaming) -> None:
        self._naming = naming
        self._thread = threading.Thread(target=naming.run, name="copilot-sync-naming", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._naming.cancel()
        self._thread.join(JOIN_TIMEOUT)


def _flags() -> Dict[str, Any]:
    flags: Dict[str, Any] = click.get_current_context().find_root().ensure_object(dict)
    return flags


def _note(text: str, **values: object) -> None:
    """Print a text on stderr; with values, those that it has places for."""
    click.echo(text.format(**values) if values else text, err=True)
