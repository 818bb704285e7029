"""``--profile``, an option of the program and of each command, because people type it at either end.

The help of the program has it. So nothing is imported here that takes time.
"""

from typing import Optional

import click

from copilot_sync.cli.language import marked
from copilot_sync.profiles import check_profile

NAME = "--profile"


def profile_option() -> click.Option:
    """Create the option. It notes the profile among the flags of the program's context."""
    help_text = marked("Which login.  [default: COPILOT_SYNC_PROFILE, or default]")
    return click.Option([NAME], metavar="NAME", expose_value=False, callback=_note, help=help_text)


def _note(context: click.Context, _: click.Parameter, value: Optional[str]) -> None:
    if value is None:
        return
    try:
        context.find_root().ensure_object(dict)["profile"] = check_profile(value)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def given_profile() -> Optional[str]:
    """Return the profile that the option names; ``None`` if it was not given."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.find_root().ensure_object(dict).get("profile")
