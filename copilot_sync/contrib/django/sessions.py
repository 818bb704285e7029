"""Conversations in Django's session, by name.

Django saves a session when the view has returned, which is before the answer is streamed. So the session gets the id of
the conversation as usual. The id of the answer is known at its end only. Then the session is loaded again and only
this one value is changed, because other requests may have changed others meanwhile. A view that has waited for the
service does the same before it changes the session that it was given. A session that was deleted by then stays deleted.
A session in a cookie can't change once the answer streams: it holds the conversation, and the page may
send back the id of the answer.
"""

from typing import Any, Dict, Optional, Union

from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSession
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from copilot_sync.contrib.lazy_client import user_of_session
from copilot_sync.models import Conversation

#: The key of the conversations in the session.
KEY = "copilot_sync"


def conversations(request: HttpRequest) -> Dict[str, Conversation]:
    """Return the conversations in the session by name, the newest last.

    Raises:
        ImproperlyConfigured: There are no sessions.
    """
    kept = session_of(request).get(KEY, {})
    return {name: Conversation.from_dict(data) for name, data in kept.items()}


def forget(request: HttpRequest, name: str) -> None:
    """Remove a conversation from the session, so that the next question under its name starts a new one.

    Nothing is deleted at the service.

    Raises:
        ImproperlyConfigured: There are no sessions.
    """
    session = session_of(request)
    if name in session.get(KEY, {}):
        _load_again(session)
        session[KEY] = {each: data for each, data in session.get(KEY, {}).items() if each != name}


def forget_gone(request: HttpRequest, name: str, conversation: Union[None, str, Conversation]) -> None:
    """Remove a conversation that the service does not know any more, if it is the one of that name."""
    gone = Conversation.from_value(conversation)
    if _is_kept(request, name, gone):
        _load_again(session_of(request))
        if _is_kept(request, name, gone):  # no other request has begun another one meanwhile
            forget(request, name)


def _is_kept(request: HttpRequest, name: str, conversation: Optional[Conversation]) -> bool:
    kept = conversations(request).get(name)
    return kept is not None and conversation is not None and kept.conversation_id == conversation.conversation_id


def _load_again(session: SessionBase) -> None:
    """Have a session be as it is kept now, unless this request has changed it. One that was deleted stays as it is."""
    key = getattr(session, "session_key", None)  # a test may have a dictionary
    if key is None or session.modified:
        return
    kept = dict(type(session)(key).items())
    if kept:
        session.clear()
        session.update(kept)


def session_of(request: HttpRequest) -> SessionBase:
    """Return the session of a request.

    Raises:
        ImproperlyConfigured: There are no sessions.
    """
    session: Optional[SessionBase] = getattr(request, "session", None)
    if session is None:
        raise ImproperlyConfigured("conversations are kept in the session: SessionMiddleware is needed")
    return session


def user_of(request: HttpRequest) -> Optional[str]:
    """Return who asks: the user who has logged in, else the visitor whose session was kept before; else ``None``.

    A session in a cookie is nobody's, because its key changes whenever it is written.
    """
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return str(user.pk)
    session: Optional[SessionBase] = getattr(request, "session", None)
    if session is None or isinstance(session, CookieSession) or not session.keys():  # which looks for it
        return None
    return user_of_session(session.session_key)


def remember(session: SessionBase, name: str, conversation: Conversation) -> None:
    """Put a conversation into the session before the view returns."""
    known = session.get(KEY, {}).get(name)
    if known == conversation.to_dict():
        return
    _load_again(session)
    known = session.get(KEY, {}).get(name)
    kept = _with(session, name, conversation)
    if known is not None and known["conversation_id"] != conversation.conversation_id:
        kept[name] = kept.pop(name)  # another conversation, and so the newest
    session[KEY] = kept


def update(session: SessionBase, name: str, conversation: Conversation) -> None:
    """Write the last message of a conversation to a session that was saved already."""
    stored = type(session)(session.session_key)
    known = stored.get(KEY, {}).get(name)
    if known is None or known["conversation_id"] != conversation.conversation_id:
        return
    stored[KEY] = _with(stored, name, conversation)
    try:
        stored.save()
    except UpdateError:
        return  # it was deleted in the meantime


def _with(session: SessionBase, name: str, conversation: Conversation) -> Dict[str, Any]:
    return {**session.get(KEY, {}), name: conversation.to_dict()}
