"""The settings of the chat: no database, no accounts. The credentials of Copilot come from the environment."""

import os

from examples.development import CHAT_BACKGROUND, REDIS_URL, RETRY, secret_key

SECRET_KEY = secret_key()
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "127.0.0.1,localhost").split(",")
ROOT_URLCONF = "examples.django_chat.urls"
WSGI_APPLICATION = "examples.django_chat.wsgi.application"

INSTALLED_APPS = ["django.contrib.sessions", "copilot_sync.contrib.django"]
COPILOT_SYNC = {"RETRY": RETRY, "CHAT_BACKGROUND": CHAT_BACKGROUND}
if REDIS_URL:  # what several processes share: tokens, and answers under way
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]

# Kept in the visitor's cookie. A site that has a database can keep them there; nothing else changes.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
HTTPS_ONLY = bool(os.environ.get("HTTPS_ONLY"))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS_ONLY
if HTTPS_ONLY:  # a proxy speaks it and tells so; else Django takes the page's own questions for those of another site
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# The page has the token in it, so no script needs the cookie.
CSRF_COOKIE_HTTPONLY = True

# Without DEBUG Django logs nothing to the terminal by itself.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"terminal": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["terminal"], "level": "WARNING"},
}
USE_TZ = True
TIME_ZONE = "UTC"
