"""The list of models: where it is asked for, and which of them can be chatted with."""

from typing import Dict, List, Optional

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.errors import CopilotError, ProtocolError
from copilot_sync.models import Model
from copilot_sync.protocol.replies import read_models
from copilot_sync.protocol.requests import models_request
from copilot_sync.settings import RetryPolicy
from copilot_sync.transport.call import CallContext

#: Statuses by which a server says that it has no such address, or not for this.
_NO_SUCH_ADDRESS = (404, 405, 410, 501)
#: The kinds of models that answer questions; ``""`` is a kind that the service did not name.
_FOR_CHAT = ("chat", "")


def list_models(session: ApiSession, call: CallContext, policy: Optional[RetryPolicy]) -> List[Model]:
    """List everything that the service lists, as it came. Ask at the address of earlier versions if there is no other.

    Raises:
        CopilotError: The request failed.
    """
    try:
        return session.fetch(models_request(session.urls), call, policy, read_models)
    except CopilotError as error:
        if not _is_no_list(error):
            raise
    return session.fetch(models_request(session.urls, older=True), call, policy, read_models)


def chat_models(listed: List[Model]) -> List[Model]:
    """Return the models that can be chatted with, each once."""
    found: Dict[str, Model] = {}
    for model in listed:
        if model.enabled and model.kind in _FOR_CHAT:
            found.setdefault(model.id, model)
    return list(found.values())


def _is_no_list(error: CopilotError) -> bool:
    """Whether there is no list of models at an address: it does not exist, or something else came from there."""
    if error.stage != "models" or error.status is None:
        return False
    return error.status in _NO_SUCH_ADDRESS or isinstance(error, ProtocolError)
