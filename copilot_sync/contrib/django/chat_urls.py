"""The addresses of the chat page: ``path("chat/", include("copilot_sync.contrib.django.chat_urls"))``."""

from django.urls import path

from copilot_sync.contrib.django import chat_views

app_name = "copilot_chat"
urlpatterns = [
    path("", chat_views.show_page, name="page"),
    path("ask", chat_views.ask, name="ask"),
    path("retry", chat_views.retry, name="retry"),
    path("answer", chat_views.answer, name="answer"),
    path("stop", chat_views.stop, name="stop"),
    path("conversations", chat_views.list_conversations, name="conversations"),
    path("messages", chat_views.messages, name="messages"),
    path("rename", chat_views.rename, name="rename"),
    path("delete", chat_views.delete, name="delete"),
    path("models", chat_views.models, name="models"),
    path("assets/<path:path>", chat_views.asset, name="asset"),
]
