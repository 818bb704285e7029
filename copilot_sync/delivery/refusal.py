"""What is done about a question that the service refused: a better error, and no empty thread left behind.

Both are best effort, take one request each and a few seconds at most, and never hide the refusal itself. Nothing is
sent while the service asks to wait.
"""

import difflib
import itertools
import logging
from typing import Optional, Tuple

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.errors import CopilotError, ModelNotAvailableError, StreamClosedError
from copilot_sync.model_list import chat_models, list_models
from copilot_sync.models import Conversation
from copilot_sync.pacing.policy import is_refusal
from copilot_sync.protocol.replies import read_nothing
from copilot_sync.protocol.requests import delete_request
from copilot_sync.settings import MODEL, RetryPolicy
from copilot_sync.transport.call import CallContext

logger = logging.getLogger(__name__)

#: Seconds that one such request may take.
_SECONDS = 5.0
#: Seconds that a request waits for its turn after a refusal.
_PATIENCE = RetryPolicy(attempts=1, max_wait=1.0)
#: Seconds for which the list of models is kept, so that a thousand refused questions ask for it once.
_LIST_LIFETIME = 600.0
_MOST_SUGGESTIONS = 3
#: The ids that are compared and shown: more would take seconds, and longer ones are none.
_MOST_NAMES = 1000
_LONGEST_NAME = 100
#: Statuses after which another request with the same token is refused as well.
_NO_USE = (401, 421)


def name_models(error: ModelNotAvailableError, model: str, session: ApiSession, call: CallContext) -> None:
    """Say in an error which model was refused, which models have similar names, and how to list them."""
    listed: Optional[Tuple[str, ...]]
    try:
        listed = _listed_models(session, call)
    except StreamClosedError:
        raise
    except CopilotError:
        listed = None
    error.model = model
    names = listed or ()
    # A model that is listed was no slip of the pen.
    nearest = [] if model in names else difflib.get_close_matches(model, names, _MOST_SUGGESTIONS, cutoff=0.5)
    error.suggestions = tuple(nearest)
    others = [f"did you mean {' or '.join(error.suggestions)}?"] if error.suggestions else []
    if model != MODEL:
        others.append(f'"{MODEL}" is answered on every plan')
    if listed == ():
        others.append("the service lists no other model that this account may use")
    else:
        others.append("Client.models() and copilot-sync models list what the account may use")
    words = str(error.args[0]).replace("this model", f"the model {model!r}", 1)
    error.args = (f"{words}; {'; '.join(others)}",)


def _listed_models(session: ApiSession, call: CallContext) -> Tuple[str, ...]:
    known = session.listed_models
    if known is None or call.clock() - known[0] > _LIST_LIFETIME:
        with call.limited(_SECONDS):
            models = chat_models(list_models(session, call, _PATIENCE))
        names = (model.id for model in models if model.id.isprintable() and len(model.id) <= _LONGEST_NAME)
        session.listed_models = known = (call.clock(), tuple(itertools.islice(names, _MOST_NAMES)))
    return known[1]


def discard_thread(error: CopilotError, conversation: Conversation, session: ApiSession, call: CallContext) -> bool:
    """Delete the empty thread of a question that never got into it.

    Returns:
        Whether the thread is of no use any more: the question is certainly not in it.
    """
    if not is_refusal(error):
        return False
    if error.status is not None and error.status not in _NO_USE and error.stage == "message":
        try:
            with call.limited(_SECONDS):
                request = delete_request(session.urls, conversation.conversation_id)
                session.fetch(request, call, _PATIENCE, read_nothing)
        except CopilotError as failure:
            logger.debug("an empty conversation was not deleted: %s", failure)
    return True
