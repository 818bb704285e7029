"""The options of a question, as types: what ``ask``, ``stream`` and the methods like them take by name.

``Client.ask`` and ``Client.stream`` name most of their options, with the defaults, so that ``help`` and editors show
them. Here are all of them once more, for methods that hand their options on, and for wrappers that users write. A test
compares the two. Whoever checks types reports a misspelt option, and a value of a wrong type.

At run time nothing is checked here, and typing_extensions is not needed: there, ``Unpack`` of any options is ``Any``.
"""

from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Optional, TypedDict, Union

from copilot_sync.delivery.message import MessageHandle
from copilot_sync.inline_files import FileInput
from copilot_sync.models import Conversation
from copilot_sync.settings import RetryPolicy, TimeoutValue

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
else:

    class Unpack:
        """``Unpack[Options]`` for those who read annotations at run time, such as ``typing.get_type_hints``."""

        def __class_getitem__(cls, options: type) -> object:
            return Any


class _CommonFields(TypedDict, total=False):
    """Fields of the request that a question keeps if it is asked again."""

    references: Optional[Iterable[Mapping[str, Any]]]
    context: Optional[Iterable[Mapping[str, Any]]]
    intent: Optional[str]
    mode: Optional[str]
    custom_instructions: Union[None, str, Iterable[str]]
    media: Optional[Iterable[Mapping[str, Any]]]
    extra: Optional[Mapping[str, Any]]


class _DeliveryOptions(TypedDict, total=False):
    """What ``Client.stream`` names, and ``Client.ask`` hands on."""

    buffered: bool
    handle: Optional[MessageHandle]
    fallback_model: str
    on_discard: Optional[Callable[[Conversation], None]]


class _SchemaOptions(TypedDict, total=False):
    """What those take that return a whole answer."""

    schema: Any
    repairs: int


class StreamFields(_CommonFields, total=False):
    """What ``Client.stream`` takes and does not name: the fields of the request, as ``MessageOptions`` has them."""

    parent_message_id: Optional[str]


class AskFields(StreamFields, _DeliveryOptions, total=False):
    """What ``Client.ask`` takes and does not name."""


class StreamRetryOptions(_CommonFields, _DeliveryOptions, total=False):
    """Options of ``Chat.stream_retry``: a question that is asked again keeps its place and its instructions."""

    files: Optional[Iterable[FileInput]]
    timeout: TimeoutValue
    retry: Optional[RetryPolicy]
    resume: Optional[bool]
    on_start: Optional[Callable[[Conversation], None]]
    label: Optional[str]
    user: Optional[str]
    answer_cache: Optional[bool]


class StreamEditOptions(StreamRetryOptions, total=False):
    """Options of ``Chat.stream_edit``: a question that is edited keeps its place."""

    model: Optional[str]
    system: Optional[str]


class StreamResponseOptions(StreamEditOptions, total=False):
    """Options of ``stream_response`` for Django and Flask, which find the conversation in the session."""

    parent_message_id: Optional[str]


class StreamOptions(StreamResponseOptions, total=False):
    """The types of the options of ``Client.stream``: those of ``Options``, but for ``schema`` and ``repairs``."""

    conversation: Union[None, str, Conversation]


class RetryOptions(StreamRetryOptions, _SchemaOptions, total=False):
    """Options of ``Chat.retry``."""


class EditOptions(StreamEditOptions, _SchemaOptions, total=False):
    """Options of ``Chat.edit``."""


class AskResponseOptions(StreamResponseOptions, _SchemaOptions, total=False):
    """Options of ``ask_response`` for Django and Flask."""


class Options(StreamOptions, _SchemaOptions, total=False):
    """The types of the options of ``Client.ask``, for a function that hands them on.

    All of them are optional. At run time this is a ``TypedDict``: a call returns a plain ``dict`` and checks nothing.

    >>> def ask_briefly(client: Client, prompt: str, **options: "Unpack[Options]") -> str:
    ...     options.setdefault("system", "Answer in one sentence.")
    ...     return client.ask(prompt, **options).text
    """
