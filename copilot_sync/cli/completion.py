"""``copilot-sync completion``: what has a shell complete commands and options.

The script is click's. This module knows where each shell looks for it.
"""

import os
from typing import Optional

import click
from click.shell_completion import get_completion_class

from copilot_sync.cli.language import _, marked
from copilot_sync.safe_files import replacing
from copilot_sync.user_folders import COMPLETIONS, completion_file

_VARIABLE = "_COPILOT_SYNC_COMPLETE"
_ZSH = marked("if ~/.zshrc does not have it yet, add: fpath+=~/.zfunc; autoload -Uz compinit; compinit")


@click.command(
    epilog="""\b
Examples:
  copilot-sync completion --install
  copilot-sync completion fish > ~/.config/fish/completions/copilot-sync.fish
"""
)
@click.argument("shell", metavar="[SHELL]", type=click.Choice(list(COMPLETIONS)), required=False)
@click.option("--install", is_flag=True, help="Write it where the shell looks for it.")
def completion(shell: Optional[str], install: bool) -> None:
    """Print what has a SHELL complete commands: bash, fish or zsh.

    Without SHELL, it is the one that SHELL in the environment names.
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in COMPLETIONS:
        raise click.UsageError(_("which shell is it? Name one of {names}").format(names=", ".join(COMPLETIONS)))
    kind = get_completion_class(name)
    assert kind is not None  # noqa: S101 - click has all of these
    script = kind(click.get_current_context().find_root().command, {}, "copilot-sync", _VARIABLE).source()
    if install:
        _install(name, script)
    else:
        click.echo(script)


def _install(shell: str, script: str) -> None:
    path = completion_file(shell)
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                if _VARIABLE not in file.read():
                    words = _("{file} is not from this program, and was left as it is")
                    raise click.ClickException(words.format(file=path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path, 0o644) as file:  # a full disk leaves the one that was there
            file.write(script.encode("utf-8"))
    except OSError as error:
        raise click.ClickException(
            _("{file} can't be written: {reason}").format(file=path, reason=error.strerror)
        ) from error
    click.echo(_("written to {file}; it works in the next {shell}").format(file=path, shell=shell), err=True)
    if shell == "zsh":
        click.echo(_(_ZSH), err=True)
