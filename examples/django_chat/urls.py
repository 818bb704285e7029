"""The addresses. They are those of the page's script."""

from django.urls import path
from django.views.static import serve

from examples import chat_page
from examples.django_chat import views

urlpatterns = [
    path("", views.page),
    path("ask", views.ask),
    path("conversations", views.names),
    path("messages", views.messages),
    path("delete", views.delete),
    path("markdown", views.markdown),
    # A site with more than these files lets WhiteNoise or nginx send them.
    path("static/<path:path>", serve, {"document_root": chat_page.STATIC}),
]
