"""Error messages for a person in a terminal: what happened, and what to type next.

``--verbose`` adds the details for a bug report, such as the stage, ids and the number of attempts, and shows the log.
"""

from typing import Mapping, Tuple, Type

import click

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
from copilot_sync.terminal_text import one_line

_DOCTOR = "check with: copilot-sync doctor"
_LOGIN = f"log in with: copilot-sync login; {_DOCTOR}"
_MODELS = "see the models with: copilot-sync models"
#: In these stages a 404 means that the conversation is missing; in others, that the address is wrong.
_ABOUT_A_CONVERSATION = (None, "message", "messages", "rename", "delete", "stream")
#: The statuses for an unknown model. Others say more about the request.
_MAY_BE_THE_MODEL = (None, 400, 422)
#: What to type next. The first class that matches counts.
_ADVICE: Tuple[Tuple[Type[CopilotError], str], ...] = (
    (MissingCredentialsError, _LOGIN),
    (PermissionDeniedError, _MODELS),
    (AuthenticationError, _LOGIN),
    (WrongHostError, _DOCTOR),
    (NotFoundError, "see what there is with: copilot-sync threads list"),
    (ModelNotAvailableError, ""),  # it says so itself
    (InvalidAnswerError, "see the answers with: copilot-sync threads show {conversation}"),
    (InvalidRequestError, _MODELS),
    (QuotaExceededError, ""),
    (RateLimitError, "try again later"),
    (NetworkError, _DOCTOR),
    (ServerError, "try again later"),
    (StreamInterruptedError, "see what there is of it with: copilot-sync threads show {conversation}"),
    (ProtocolError, _DOCTOR),
)


def describe_error(error: CopilotError, flags: Mapping[str, bool]) -> str:
    """Describe an error of the library in one line. ``flags`` are those of the program's context."""
    words = str(error) if flags.get("verbose") else str(error.args[0])
    return one_line("; ".join(filter(None, [words, _advice_for(error)])))


def _advice_for(error: CopilotError) -> str:
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        return f"try again in {wait:.0f} s"
    if isinstance(error, NotFoundError) and error.stage not in _ABOUT_A_CONVERSATION:
        return _DOCTOR
    if isinstance(error, InvalidRequestError) and error.status not in _MAY_BE_THE_MODEL:
        return ""
    advice = next((words for kind, words in _ADVICE if isinstance(error, kind)), "")
    conversation = getattr(error, "conversation", None)
    if "{" in advice:
        return advice.format(conversation=conversation.conversation_id) if conversation else ""
    return advice


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    flags = context.find_root().ensure_object(dict)
    if value and not flags.get("verbose"):
        from copilot_sync.cli import log  # it loads logging, which a help text does without

        flags["verbose"] = True
        context.find_root().with_resource(log.shown())


def verbose() -> click.Option:
    """Create the option. Each command takes it as well, because people type it at the end."""
    help_text = "Show the log, and all details of an error."
    return click.Option(["--verbose"], is_flag=True, expose_value=False, callback=_remember, help=help_text)
