"""Error messages for a person in a terminal: what happened, and what to type next.

``--verbose`` adds the details for a bug report, such as the stage, ids and the number of attempts, and shows the log.
"""

import re
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Type

import click

from copilot_sync.cli.language import _, marked
from copilot_sync.cli.profile_option import NAME
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidAnswerError,
    InvalidRequestError,
    MissingCredentialsError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.settings import Environment
from copilot_sync.terminal_text import one_line

_DOCTOR = marked("check with: copilot-sync doctor")
_LOGIN = marked("log in with: copilot-sync login")
_MODELS = marked("see the models with: copilot-sync models")
_THREADS = marked("see what there is with: copilot-sync threads list")
_LATER = marked("try again later")
#: The system's name for what went wrong, which is for those who know it.
_CODE = re.compile(r" \(E[A-Z0-9]+\)")
#: What to do about refused requests that have nothing to do with the model, by their statuses.
_OTHER_REQUESTS: Mapping[Optional[int], str] = {
    413: marked("send a shorter question, or fewer files"),
    466: marked("upgrade copilot-sync with pip"),
}
#: In these stages a 404 means that the conversation is missing; in others, that the address is wrong.
_ABOUT_A_CONVERSATION = (None, "message", "messages", "rename", "delete", "stream")
#: The statuses for an unknown model. Others say more about the request.
_MAY_BE_THE_MODEL = (None, 400, 422)
#: What to type next. The first class that matches counts.
_ADVICE: Tuple[Tuple[Type[CopilotError], Sequence[str]], ...] = (
    (MissingCredentialsError, [_LOGIN, _DOCTOR]),
    (PermissionDeniedError, [_MODELS]),
    (AuthenticationError, [_LOGIN, _DOCTOR]),
    (WrongHostError, [_DOCTOR]),
    (NotFoundError, [_THREADS]),
    (ModelNotAvailableError, []),  # it says so itself
    (InvalidAnswerError, [marked("see the answers with: copilot-sync threads show {conversation}")]),
    (InvalidRequestError, [_MODELS]),
    (QuotaExceededError, [marked("see what is left with: copilot-sync quota")]),
    (RateLimitError, [_LATER]),
    (NetworkError, [_DOCTOR]),
    (ServerError, [_LATER, _DOCTOR]),
    (StreamInterruptedError, [marked("see what there is of it with: copilot-sync threads show {conversation}")]),
    (ProtocolError, [_DOCTOR]),
)


def describe_error(error: CopilotError, flags: Mapping[str, Any]) -> str:
    """Describe an error of the library in one line. ``flags`` are those of the program's context."""
    words = str(error) if flags.get("verbose") else _CODE.sub("", str(error.args[0]))
    new = [part for part in _advice_for(error, flags) if part.rpartition(": ")[2] not in words]
    if flags.get("profile"):
        new = [f"{part} {NAME} {flags['profile']}" if "copilot-sync " in part else part for part in new]
    return one_line("; ".join([words, *new]))


def advice_on_variable(environment: Environment) -> Optional[str]:
    """What to do if the credentials of a variable are no good, beside which a login is of no use; ``None`` if unset."""
    variable = environment.credentials_variable
    return None if variable is None else _("correct or unset {variable}").format(variable=variable)


def _advice_for(error: CopilotError, flags: Mapping[str, Any]) -> List[str]:
    if isinstance(error, NotFoundError) and error.stage not in _ABOUT_A_CONVERSATION:
        return [_(_DOCTOR)]
    if isinstance(error, InvalidRequestError) and error.status not in _MAY_BE_THE_MODEL:
        return [_(_OTHER_REQUESTS.get(error.status, _DOCTOR))]
    advice = next((words for kind, words in _ADVICE if isinstance(error, kind)), [])
    if _LOGIN in advice:
        # A profile that was typed goes before a variable.
        variable = None if flags.get("profile") else advice_on_variable(Environment.read())
        return [variable or _(_LOGIN), _(_DOCTOR)]
    conversation = getattr(error, "conversation", None)
    if conversation:
        shown = [_(words).format(conversation=conversation.conversation_id) for words in advice]
    else:
        shown = [_(_THREADS if "{" in words else words) for words in advice]
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        from copilot_sync.cli.durations import duration  # few errors need it, and it takes a while

        when = _("try again in {time}").format(time=duration(wait))
        return [when, *shown] if isinstance(error, QuotaExceededError) else [when]
    return shown


def _remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    flags = context.find_root().ensure_object(dict)
    if value and not flags.get("verbose"):
        from copilot_sync.cli import log  # it loads logging, which a help text does without

        flags["verbose"] = True
        context.find_root().with_resource(log.shown())


def verbose() -> click.Option:
    """Create the option. Each command takes it as well, because people type it at the end."""
    help_text = marked("Show the log, and all details of an error.")
    return click.Option(["--verbose"], is_flag=True, expose_value=False, callback=_remember, help=help_text)
