"""The addresses: those of the chat, and no other."""

from django.urls import include, path

urlpatterns = [path("", include("copilot_sync.contrib.django.chat_urls"))]
