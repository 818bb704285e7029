"""A cell magic for Jupyter and IPython: ``%%copilot`` asks the text of its cell, and shows the answer while it comes.

>>> %load_ext copilot_sync.contrib.jupyter  # doctest: +SKIP

Each cell goes on with the notebook's conversation. The credentials are those of the environment, as for ``Client``.

Threads: a magic is confined to the thread that runs the cells.
"""

import sys
import time
from typing import Any, Dict, List, Optional

from copilot_sync.chat import Chat
from copilot_sync.client import Client
from copilot_sync.contrib.sse import is_gone
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer
from copilot_sync.stream import Stream
from copilot_sync.terminal_text import write_pieces

try:
    from IPython.core.error import UsageError
    from IPython.core.magic import Magics, cell_magic, magics_class
    from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
    from IPython.display import Markdown, display
    from IPython.terminal.interactiveshell import TerminalInteractiveShell
except ImportError as error:
    raise ImportError('this module needs IPython: pip install "copilot-sync[jupyter]"', name=error.name) from None

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

#: The shortest time between two updates of an answer that is shown, in seconds.
_BETWEEN_UPDATES = 0.1


class CellInterrupt(KeyboardInterrupt):
    """The user interrupted the kernel. The cell says so in a line, and cells that wait for it are not run."""

    def _render_traceback_(self) -> List[str]:
        # IPython shows this in place of a traceback.
        return ["interrupted: this is the part of the answer that had come"]


@magics_class
class CopilotMagics(Magics):
    """``%%copilot``, with the conversation of one notebook."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._client: Optional[Client] = None
        self._chat: Optional[Chat] = None

    @magic_arguments()
    @argument("-m", "--model", help="The model for this cell. Default: the one that COPILOT_SYNC_MODEL names, or auto.")
    @argument(
        "-c",
        "--conversation",
        metavar="ID",
        help="'new', or the id of a conversation to go on with, here and in the next cells.",
    )
    @argument(
        "-o", "--output", metavar="NAME", help="The variable that the answer is stored in, a copilot_sync.Answer."
    )
    @cell_magic
    def copilot(self, line: str, cell: str) -> None:
        """Ask GitHub Copilot the text of this cell, and show the answer while it comes."""
        arguments = parse_argstring(self.copilot, line)
        name = arguments.output
        if name is not None and not name.isidentifier():
            raise UsageError(f"--output takes the name of a variable, and {name!r} is none")
        options: Dict[str, Any] = {"model": arguments.model} if arguments.model else {}
        before = self._chat
        with self._chat_of(arguments.conversation).stream(cell.strip(), **options) as stream:
            try:
                self._show(stream)
            except KeyboardInterrupt:
                raise CellInterrupt from None
            except CopilotError as error:
                if is_gone(error):
                    # A mistyped id is not gone on with, nor a conversation that the service has forgotten.
                    self._chat = None if self._chat is before else before
                raise error.with_traceback(None)  # noqa: B904 - its words help, and not twenty frames of the library
            finally:
                answer = stream.answer or _part_of(stream)
                if name is not None and answer is not None:
                    shell: Any = self.shell
                    shell.push({name: answer})

    def _chat_of(self, conversation: Optional[str]) -> Chat:
        """Return the notebook's conversation. Another one takes its place if the cell says so."""
        if self._client is None:
            self._client = Client()
        if self._chat is None or conversation is not None:
            self._chat = self._client.chat(None if conversation == "new" else conversation)
        return self._chat

    def _show(self, stream: Stream) -> None:
        """Show an answer while it comes, and what there is of it if it breaks off."""
        if isinstance(self.shell, TerminalInteractiveShell):
            write_pieces(stream, sys.stdout)
            return
        handle = display(Markdown(""), display_id=True)
        shown, updated = "", time.monotonic()
        try:
            while stream.poll(_BETWEEN_UPDATES) != "":
                if stream.text != shown and time.monotonic() - updated >= _BETWEEN_UPDATES:
                    shown, updated = stream.text, time.monotonic()
                    handle.update(Markdown(shown))
        finally:
            handle.update(Markdown(stream.text))

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()


def _part_of(stream: Stream) -> Optional[Answer]:
    """Return the part of an answer that had come before it was stopped or failed; ``None`` if there is none."""
    if stream.conversation is None or not stream.text:
        return None
    return Answer(stream.text, stream.conversation, stream._message.model, complete=False)


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%copilot``; ``%load_ext`` calls this."""
    shell.register_magics(CopilotMagics(shell))


def unload_ipython_extension(shell: Any) -> None:
    """Take ``%%copilot`` away and close its connections; ``%unload_ext`` and ``%reload_ext`` call this."""
    shell.magics_manager.registry.pop(CopilotMagics.__name__).close()
    del shell.magics_manager.magics["cell"]["copilot"]
