"""The help of commands in the language of the user.

A command is an object that is made when its module is imported, with English help. A copy of it has the help that is
shown. The catalog has a help text as a whole, without the indentation of its docstring, and the examples by lines.
"""

import copy
import inspect
from typing import Optional

import click

from copilot_sync.cli.language import _, is_translated


def translated(command: click.Command) -> click.Command:
    """Return a command whose help, and that of its options and subcommands, is in the language that is spoken."""
    if not is_translated():
        return command
    shown = copy.copy(command)
    shown.help, shown.epilog = _text(command.help), _lines(command.epilog)
    shown.params = [_parameter(each) for each in command.params]
    if isinstance(shown, click.Group):
        shown.commands = {name: translated(each) for name, each in shown.commands.items()}
    return shown


def _parameter(parameter: click.Parameter) -> click.Parameter:
    shown = copy.copy(parameter)
    if isinstance(shown, click.Option):
        shown.help = _text(shown.help)
        if isinstance(shown.show_default, str):
            shown.show_default = _(shown.show_default)
    return shown


def _lines(text: Optional[str]) -> Optional[str]:
    """Translate each line that is in the catalog: of examples, those that hold more than what is typed anyway."""
    return "\n".join(line and _(line) for line in text.split("\n")) if text else text


def _text(text: Optional[str]) -> Optional[str]:
    return _(inspect.cleandoc(text)) if text else text
