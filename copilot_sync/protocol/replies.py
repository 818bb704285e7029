"""What comes back as one document: a token, a quota, a new thread, and the lists of threads, messages and models."""

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from copilot_sync.errors import AuthenticationError, ProtocolError
from copilot_sync.models import Message, Model, Quota, Thread
from copilot_sync.protocol.errors import no_token_error, server_words
from copilot_sync.protocol.events import is_error, usage_in
from copilot_sync.protocol.untrusted import (
    RawReply,
    decoded,
    first_byte,
    is_header_value,
    mapping_in,
    mappings_in,
    number_in,
    optional_text_in,
    server_time,
    text_in,
    without_leading,
)
from copilot_sync.safe_text import check_id, loads, well_formed
from copilot_sync.settings import TOKEN_LIFETIME
from copilot_sync.times import read_date

_LONGEST_LIFETIME = 86400.0
#: What tells that a reply is about a quota (public captures, 2026).
_QUOTA_KEYS = ("licenseType", "plan", "quotas")


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
    data = _read_page_reply(reply, "token", mask)
    token = data.get("token")
    if not isinstance(token, str) or not token:
        raise _not_given(reply, "token", server_words(reply, mask))
    if not is_header_value(token):
        raise ProtocolError("the token holds characters that can't be sent", stage="token", status=reply.status)
    return token, _lifetime(data.get("expiration"), server_time(reply.headers, now))


def read_quota(reply: RawReply, mask: Callable[[str], str] = str) -> Quota:
    """Read what the account may use and has left. A shape that is not known stands in ``data`` alone.

    Args:
        reply: A reply with a status of success.
        mask: Takes the secrets out of the server's words.

    Raises:
        AuthenticationError: A page came instead, or a refusal: the cookies are not valid, or the account has no quota.
        ProtocolError: It is broken JSON.
    """
    data = _read_page_reply(reply, "quota", mask)
    words = server_words(reply, mask)
    if words and not any(key in data for key in _QUOTA_KEYS):
        raise _not_given(reply, "quota", words)
    quotas = mapping_in(data, "quotas")
    overages = quotas.get("overagesEnabled")
    return Quota(
        plan=text_in(data, "plan"),
        license_type=text_in(data, "licenseType"),
        limits=_numbers(mapping_in(quotas, "limits")),
        remaining=_numbers(mapping_in(quotas, "remaining")),
        resets_at=optional_text_in(quotas, "resetDate"),
        overages_enabled=overages if isinstance(overages, bool) else None,
        data=data,
    )


def _numbers(entries: Mapping[str, Any]) -> Dict[str, Union[int, float]]:
    numbers = ((well_formed(name), number_in(entries, name)) for name in entries)
    return {name: number for name, number in numbers if number is not None}


def _read_page_reply(reply: RawReply, stage: str, mask: Callable[[str], str]) -> Mapping[str, Any]:
    """Read the object that github.com sends to whoever has cookies; others get its login page."""
    data = _read_json(reply, stage) if first_byte(reply) in (b"{", b"[") else None
    if isinstance(data, Mapping):
        return data
    raise _not_given(reply, stage, "" if isinstance(data, list) else server_words(reply, mask))


def _not_given(reply: RawReply, what: str, words: str) -> AuthenticationError:
    return no_token_error(
        f"the reply held no {what}",
        "the github.com cookies are not valid any more; sign in again and renew user_session",
        words if " " in words else "",  # it may be the token, in another form
        reply,
        {"stage": what, "status": reply.status},
    )


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
    return [_model(entry) for entry in _entries(reply, "models", ("data", "object"))]


def _model(entry: Mapping[str, Any]) -> Model:
    capabilities = mapping_in(entry, "capabilities")
    multiplier = number_in(mapping_in(entry, "billing"), "multiplier")
    policy = text_in(mapping_in(entry, "policy"), "state")
    return Model(
        id=text_in(entry, "id"),
        name=text_in(entry, "name"),
        vendor=text_in(entry, "vendor"),
        preview=entry.get("preview") is True,
        kind=text_in(capabilities, "type"),
        # What is not said forbids nothing.
        enabled=entry.get("model_picker_enabled") is not False and policy in ("", "enabled"),
        picker_category=text_in(entry, "model_picker_category"),
        vision=mapping_in(capabilities, "supports").get("vision") is True,
        premium_multiplier=None if multiplier is None else float(multiplier),
        data=entry,
    )


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
