"""The line editor of ``chat``: ``prompt_toolkit``, and what Tab completes.

It is imported when a chat begins in a terminal that can redraw a line. What is pasted is one entry, whatever lines it
has. A list of the service's is fetched when Tab first asks for it, and typing goes on meanwhile.

Threads: confined to the one that reads the keyboard, except that each list is fetched by a thread of its own.
"""

import asyncio
import contextlib
import threading
from typing import AsyncGenerator, Callable, Iterable, Mapping, Optional, Sequence, TextIO, Tuple, cast

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.completion import PathCompleter as PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.processors import TabsProcessor
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.patch_stdout import StdoutProxy

from copilot_sync.cli.terminal import has_colours
from copilot_sync.cli.terminal_modes import restored_by_sigterm
from copilot_sync.errors import CopilotError

#: Seconds between two looks whether a list has come.
_LOOK = 0.05

#: Words, each with what it means.
Words = Sequence[Tuple[str, str]]


class LineEditor:
    """Reads lines that somebody edits while typing them.

    Args:
        keyboard: The terminal that is read.
        screen: The terminal that is drawn on.
        lines: The lines typed before, the oldest first.
        completer: What completes a line when Tab is pressed.
    """

    def __init__(self, keyboard: TextIO, screen: TextIO, lines: Sequence[str], completer: Completer) -> None:
        self._offered = ""
        self._keyboard, self._screen = keyboard, screen
        self._output = create_output(screen)
        if isinstance(self._output, Vt100_Output):  # pragma: no branch - it is one, but on Windows
            self._output.enable_cpr = False  # or a terminal that can't say where its cursor is causes a warning
        self._session: PromptSession[str] = PromptSession(
            input=create_input(keyboard),
            output=self._output,
            history=InMemoryHistory(lines),
            completer=completer,
            complete_while_typing=False,
            key_bindings=_keys(),
            input_processors=[TabsProcessor(tabstop=8, char1=" ", char2=" ")],
            enable_suspend=True,
            enable_open_in_editor=True,
            include_default_pygments_style=False,
            color_depth=None if has_colours(screen) else ColorDepth.DEPTH_1_BIT,
        )

    def offer(self, text: str) -> None:
        """Have a text in the next line, as if it were typed already."""
        self._offered = text

    def line(self, prompt: str) -> str:
        """Read a line. What other threads print meanwhile appears above it.

        Raises:
            EOFError: It is the end of input.
            KeyboardInterrupt: Ctrl-C was typed.
        """
        with self._printer() as printer, contextlib.redirect_stderr(cast(TextIO, printer)):
            offered, self._offered = self._offered, ""
            with restored_by_sigterm(self._keyboard, self._screen):
                return self._session.prompt(prompt, default=offered)

    def _printer(self) -> StdoutProxy:
        """Return what prints above the line, on the same screen."""
        with create_app_session(output=self._output) as session:
            printer = StdoutProxy(raw=True)
        session.app = self._session.app  # it is not run in this session: the printer's thread may be in the default one
        return printer


def _keys() -> KeyBindings:
    """Let Tab be a character in a question: not every terminal marks what is pasted."""
    keys = KeyBindings()

    @keys.add("tab", filter=Condition(lambda: not get_app().current_buffer.text.startswith("/")))
    def insert_tab(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\t")

    return keys


class _AsyncCompleter(Completer):
    """A completer that may have to wait, which an editor never calls without ``await``."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Offer nothing."""
        return ()


class CommandCompleter(_AsyncCompleter):
    """Completes commands and what follows them.

    Args:
        commands: Each command, with what completes its argument, if anything does.
    """

    def __init__(self, commands: Mapping[str, Optional[Completer]]) -> None:
        self._commands = commands

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Yield what the text before the cursor may become."""
        command, space, argument = document.text_before_cursor.partition(" ")
        if not space:
            for completion in _beginning_with(command, [(name, "") for name in self._commands]):
                yield completion
            return
        completer = self._commands.get(command)
        if completer is not None:
            async for completion in completer.get_completions_async(Document(argument), complete_event):
                yield completion


class FetchedWords(_AsyncCompleter):
    """Completes a word of a list that is fetched once, when it is first needed. One that fails is fetched again.

    Args:
        fetch: Returns the list. It may ask the service.
    """

    def __init__(self, fetch: Callable[[], Words]) -> None:
        self._fetch = fetch
        self._words: Optional[Words] = None
        self._thread: Optional[threading.Thread] = None

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Wait for the list, and yield the words that begin as the text before the cursor does."""
        if self._words is None and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="copilot-sync-words", daemon=True)
            self._thread.start()
        while self._thread is not None and self._thread.is_alive():
            await asyncio.sleep(_LOOK)
        for completion in _beginning_with(document.text_before_cursor, self._words or ()):
            yield completion

    def _run(self) -> None:
        with contextlib.suppress(CopilotError):  # the command that needs the word says what is wrong
            self._words = self._fetch()


def _beginning_with(typed: str, words: Words) -> Iterable[Completion]:
    return (Completion(word, -len(typed), display_meta=about) for word, about in words if word.startswith(typed))
