"""The addresses. They are those of the page's script."""

from django.urls import path

from examples.django_chat import views

urlpatterns = [
    path("", views.page),
    path("ask", views.ask),
    path("retry", views.retry),
    path("conversations", views.names),
    path("messages", views.messages),
    path("delete", views.delete),
    path("markdown", views.markdown),
    path("static/<path:path>", views.static),
]
