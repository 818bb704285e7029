"""Conversations in Django's session, by name.

A session is saved when the view has returned, which is before the answer is streamed. So what is known by then, the
conversation's id, is put into the session as usual. The id of the answer is known at its end alone: then the
session is read again from where it is kept, and only this one value is changed in it, because other requests
may have changed others meanwhile. A session that is gone by then stays gone. Sessions that live in a cookie can't be
changed once the answer streams: they keep the conversation, and the page may send the answer's id back.
"""

from typing import Any, Dict, Optional

from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from copilot_sync.models import Conversation

#: The key in the session under which all conversations are.
KEY = "copilot_sync"


def conversations(request: HttpRequest) -> Dict[str, Conversation]:
    """Return the conversations that the session holds, by name, the one begun last at the end.

    Raises:
        ImproperlyConfigured: There are no sessions.
    """
    kept = session_of(request).get(KEY, {})
    return {name: Conversation.from_dict(data) for name, data in kept.items()}


def forget(request: HttpRequest, name: str) -> None:
    """Forget a conversation, so that the next question under its name begins a new one. Nothing is deleted elsewhere.

    Raises:
        ImproperlyConfigured: There are no sessions.
    """
    session = session_of(request)
    if name in session.get(KEY, {}):
        session[KEY] = {each: data for each, data in session[KEY].items() if each != name}


def session_of(request: HttpRequest) -> SessionBase:
    """Return a request's session.

    Raises:
        ImproperlyConfigured: There are no sessions.
    """
    session: Optional[SessionBase] = getattr(request, "session", None)
    if session is None:
        raise ImproperlyConfigured("conversations are kept in the session: SessionMiddleware is needed")
    return session


def remember(session: SessionBase, name: str, conversation: Conversation) -> None:
    """Put a conversation into the session of a view that has not returned yet."""
    known = session.get(KEY, {}).get(name)
    if known == conversation.to_dict():
        return
    kept = _with(session, name, conversation)
    if known is not None and known["conversation_id"] != conversation.conversation_id:
        kept[name] = kept.pop(name)  # another one, and so the one begun last
    session[KEY] = kept


def update(session: SessionBase, name: str, conversation: Conversation) -> None:
    """Note the last message of a conversation in a session that was saved already."""
    stored = type(session)(session.session_key)
    known = stored.get(KEY, {}).get(name)
    if known is None or known["conversation_id"] != conversation.conversation_id:
        return
    stored[KEY] = _with(stored, name, conversation)
    try:
        stored.save()
    except UpdateError:
        return  # it was deleted in this very moment


def _with(session: SessionBase, name: str, conversation: Conversation) -> Dict[str, Any]:
    return {**session.get(KEY, {}), name: conversation.to_dict()}
