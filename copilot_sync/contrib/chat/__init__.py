"""A chat page for a site: a page with its script and style, and the addresses that the script talks to.

    path("chat/", include("copilot_sync.contrib.django.chat_urls"))             # Django
    app.register_blueprint(copilot_sync.contrib.flask_chat.blueprint, url_prefix="/chat")  # Flask

This package knows neither framework. ``page`` has the page and its texts' rules, ``service`` what the addresses answer,
``kept_answers`` what is kept of an answer for a reader who comes back, and ``bodies`` and ``bodies_async`` stream it.
"""
