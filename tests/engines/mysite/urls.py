"""Its chat."""

from typing import Any

from django.http import HttpRequest
from django.urls import path

from copilot_sync.contrib.django import stream_response


def chat(request: HttpRequest) -> Any:
    """Answer what the query asks."""
    return stream_response(request, request.GET.get("prompt"), name=request.GET.get("name"))


urlpatterns = [path("chat", chat)]
