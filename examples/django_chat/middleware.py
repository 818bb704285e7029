"""What holds for each request: the header fields that protect the page, and what it is told when something fails."""

from typing import Callable, Optional

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from copilot_sync import CopilotError
from copilot_sync.contrib.sse import log_failure
from examples import chat_page


class ChatMiddleware:
    """Stands around all views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Have the browser run nothing but the script of this site."""
        response = self._get_response(request)
        for name, value in chat_page.SECURITY_HEADERS.items():
            response[name] = value
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> Optional[HttpResponseBase]:
        """Tell the page in words for a person, and the log in full."""
        if not isinstance(error, CopilotError):
            return None
        log_failure(error)
        return JsonResponse(chat_page.told(error), status=502)
