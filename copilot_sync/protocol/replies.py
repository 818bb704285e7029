"""What comes back as one document: a token, a new thread, and the lists of threads, messages and models."""

from typing import Any, Callable, List, Mapping, Optional, Tuple

from copilot_sync.errors import ProtocolError
from copilot_sync.models import Message, Model, Thread
from copilot_sync.protocol.errors import no_token_error, server_words
from copilot_sync.protocol.events import is_error, usage_in
from copilot_sync.protocol.untrusted import (
    RawReply,
    decoded,
    first_byte,
    is_header_value,
    mappings_in,
    optional_text_in,
    server_time,
    text_in,
    without_leading,
)
from copilot_sync.safe_text import check_id, loads
from copilot_sync.settings import TOKEN_LIFETIME
from copilot_sync.times import read_date

_LONGEST_LIFETIME = 86400.0


def read_token(reply: RawReply, now: float, mask: Callable[[str], str] = str) -> Tuple[str, float]:
    """Read the token's reply.

    Args:
        reply: A reply with a status of success.
        now: The wall clock, in seconds since 1970, for a server that sends no ``Date``.
        mask: Takes the secrets out of the server's words.

    Returns:
        The token, and how many seconds it will live.

    Raises:
        AuthenticationError: There is no token in it: the cookies are not valid, or the account gets none. The error
            says why if the reply does.
        ProtocolError: It is broken JSON, or a token that can't be sent.
    """
    data = _read_json(reply, "token") if first_byte(reply) in (b"{", b"[") else None
    token = data.get("token") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(token, str) or not token:
        words = server_words(reply, mask)
        raise no_token_error(
            "the reply held no token",
            "the github.com cookies are not valid any more; sign in again and renew user_session",
            words if " " in words and not isinstance(data, list) else "",  # it may be the token, in another form
            reply,
            {"stage": "token", "status": reply.status},
        )
    if not is_header_value(token):
        raise ProtocolError("the token holds characters that can't be sent", stage="token", status=reply.status)
    return token, _lifetime(data.get("expiration"), server_time(reply.headers, now))


def _lifetime(expiration: object, now: float) -> float:
    end = read_date(expiration) if isinstance(expiration, str) else None
    left = 0.0 if end is None else end - now
    # A new token that is over already, or lives for days, means that one of the clocks is wrong.
    return left if 0 < left <= _LONGEST_LIFETIME else TOKEN_LIFETIME


def read_thread_id(reply: RawReply) -> str:
    """Read the id of a new thread, in any of the three forms that are known.

    Raises:
        ProtocolError: There is none in it.
    """
    data = _read_json(reply, "thread")
    if isinstance(data, Mapping):
        inner = data.get("thread")
        candidates = [data.get("thread_id"), inner.get("id") if isinstance(inner, Mapping) else None, data.get("id")]
        for candidate in candidates:
            if isinstance(candidate, str) and _is_id(candidate):
                return candidate
    raise ProtocolError("the reply to a new thread held no id of it", stage="thread", status=reply.status)


def _is_id(identifier: str) -> bool:
    try:
        check_id(identifier)
    except ValueError:
        return False
    return True


def read_nothing(reply: RawReply) -> None:
    """Read the reply to what has no more to say than that it was done."""


def read_threads(reply: RawReply) -> List[Thread]:
    """Read the list of threads; entries without an id are left out."""
    return [
        Thread(
            id=text_in(entry, "id"),
            name=text_in(entry, "name"),
            created_at=optional_text_in(entry, "createdAt"),
            updated_at=optional_text_in(entry, "updatedAt"),
            shared_at=optional_text_in(entry, "sharedAt"),
            manually_named=entry.get("manuallyNamed") is True,
            data=entry,
        )
        for entry in _entries(reply, "threads", ("threads",))
    ]


def read_name(reply: RawReply) -> str:
    """Read the name that a thread has been given; ``""`` if the reply does not say.

    Raises:
        ProtocolError: An error came instead.
    """
    try:
        data = loads(decoded(reply.body))
    except ValueError:
        return ""
    if not isinstance(data, Mapping):
        return ""
    if is_error(data):
        raise ProtocolError("an error came instead of the conversation's name", stage="rename", status=reply.status)
    return text_in(data, "name")


def read_messages(reply: RawReply, thread_id: Optional[str] = None) -> List[Message]:
    """Read a thread's messages; entries without an id are left out.

    Raises:
        ProtocolError: It is no list of messages, or one of another thread than the one that was asked for.
    """
    data = _read_json(reply, "messages")
    entries = _listed(data, reply, "messages", ("messages", "thread"))
    thread = data.get("thread")
    told = text_in(thread, "id") if isinstance(thread, Mapping) else ""
    if thread_id is not None and told not in ("", thread_id):
        raise ProtocolError("the messages of another conversation came", stage="messages", status=reply.status)
    return [
        Message(
            id=text_in(entry, "id"),
            role=text_in(entry, "role"),
            content=text_in(entry, "content"),
            parent_id=optional_text_in(entry, "parentMessageID"),
            created_at=optional_text_in(entry, "createdAt"),
            interrupted=entry.get("interrupted") is True,
            model=text_in(entry, "model"),
            usage=usage_in(entry),
            references=mappings_in(entry, "references"),
            data=entry,
        )
        for entry in entries
    ]


def read_models(reply: RawReply) -> List[Model]:
    """Read the list of models; entries without an id are left out."""
    return [
        Model(
            id=text_in(entry, "id"),
            name=text_in(entry, "name"),
            vendor=text_in(entry, "vendor"),
            preview=entry.get("preview") is True,
        )
        for entry in _entries(reply, "models", ("data", "object"))
    ]


def _entries(reply: RawReply, stage: str, keys: Tuple[str, ...]) -> List[Mapping[str, Any]]:
    return _listed(_read_json(reply, stage), reply, stage, keys)


def _listed(data: Any, reply: RawReply, stage: str, keys: Tuple[str, ...]) -> List[Mapping[str, Any]]:
    """Read a list that stands under the first of the keys; the others, too, tell that this is the reply.

    An empty list may come as ``null``, or not at all; but what tells of an error is no list.
    """
    if isinstance(data, Mapping) and not isinstance(data.get(keys[0]), list) and is_error(data):
        raise ProtocolError(f"an error came instead of a list of {stage}", stage=stage, status=reply.status)
    fields = data if isinstance(data, Mapping) else {}
    entries = fields.get(keys[0])
    if entries is None and (keys[0] in fields or any(fields.get(key) is not None for key in keys)):
        return []
    if not isinstance(entries, list):
        raise ProtocolError(f"the reply held no list of {stage}", stage=stage, status=reply.status)
    return [entry for entry in entries if isinstance(entry, Mapping) and optional_text_in(entry, "id")]


def _read_json(reply: RawReply, stage: str) -> Any:
    try:
        return loads(decoded(reply.body))
    except ValueError:
        kind = "HTML" if _is_html(reply.body) else "something else"
    # Raised out here: the error of json carries the whole reply.
    raise ProtocolError(f"JSON was expected and {kind} came", stage=stage, status=reply.status)


def _is_html(body: bytes) -> bool:
    return without_leading(body).startswith(b"<")
