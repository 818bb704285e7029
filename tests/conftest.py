"""What all tests stand on: an environment in which nothing is set."""

import gc

import pytest

from copilot_sync import settings

_VARIABLES = [value for name, value in vars(settings).items() if name.endswith("_VARIABLE")]
_PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
_CERTIFICATES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings, proxies and certificates of whoever runs the tests out of them."""
    for name in [*_VARIABLES, *_CERTIFICATES, *_PROXIES, *(name.lower() for name in _PROXIES)]:
        monkeypatch.delenv(name, raising=False)


def pytest_collection_finish() -> None:
    """Keep what was imported out of each later look for garbage: many tests make one."""
    getattr(gc, "freeze", gc.collect)()  # PyPy has no need of it
