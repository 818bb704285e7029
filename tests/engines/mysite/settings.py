"""Its settings. Credentials come from the environment."""

ALLOWED_HOSTS = ["*"]
COPILOT_SYNC = {"HEARTBEAT": 1.0}
DEBUG = True
INSTALLED_APPS = ["django.contrib.sessions", "django.contrib.staticfiles", "copilot_sync.contrib.django"]
MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", "django.contrib.sessions.middleware.SessionMiddleware"]
ROOT_URLCONF = "mysite.urls"
SECRET_KEY = "a key for signing"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
STATIC_URL = "/static/"
USE_TZ = True
WSGI_APPLICATION = "mysite.wsgi.application"
