"""``/v1/files``: what clients upload for batches, and what batches return.

Threads: any number of threads may call.
"""

from typing import IO, Any, Callable, Mapping

from copilot_sync.contrib.openai_gateway.file_store import KEPT, FileStore, Wanted
from copilot_sync.contrib.openai_gateway.pages import PageQuery, values_of
from copilot_sync.contrib.openai_gateway.uploads import read_upload
from copilot_sync.contrib.openai_gateway.wsgi_response import WsgiResponse, check_method, json_response, unknown_url
from copilot_sync.openai_api.failures import ApiError

#: For how long a file may be kept, in seconds, at least and at most.
SHORTEST, LONGEST = 3600, KEPT
_MOST_LISTED = 10_000


class Files:
    """The routes of files. Safe for any thread.

    Args:
        store: Keeps them.
        is_used: Whether an unfinished batch needs the file with an id.
    """

    def __init__(self, store: FileStore, is_used: Callable[[str], bool]) -> None:
        self._store = store
        self._is_used = is_used

    def respond(self, path: str, method: str, environ: Mapping[str, Any]) -> WsgiResponse:
        """Answer a request.

        Args:
            path: What follows ``/v1/files``.
            method: The method.
            environ: The request.

        Raises:
            ApiError: It can't be met.
        """
        name, _, rest = path.lstrip("/").partition("/")
        if not name:
            check_method(method, "GET", "POST")
            return self._create(environ) if method == "POST" else self._listed(environ)
        if not rest:
            check_method(method, "GET", "DELETE")
            return self._delete(name) if method == "DELETE" else json_response(self._store.get(name).to_dict())
        if rest == "content":
            check_method(method, "GET")
            return self._content(name)
        raise unknown_url("/v1")

    def _create(self, environ: Mapping[str, Any]) -> WsgiResponse:
        def write(file: IO[bytes]) -> Wanted:
            upload = read_upload(environ, file)
            if upload.fields.get("purpose") != "batch":
                raise ApiError(400, "purpose must be batch", code="invalid_value", param="purpose")
            anchor = upload.fields.get("expires_after[anchor]", "created_at")
            return Wanted(upload.filename, "batch", seconds_kept(anchor, upload.fields.get("expires_after[seconds]")))

        return json_response(self._store.create(write).to_dict())

    def _listed(self, environ: Mapping[str, Any]) -> WsgiResponse:
        values = values_of(str(environ.get("QUERY_STRING", "")))
        page = PageQuery.from_values(values, usual=_MOST_LISTED, most=_MOST_LISTED)
        purpose = values.get("purpose")
        found = [stored.to_dict() for stored in self._store.all() if purpose in (None, stored.purpose)]
        return json_response(page.page_of(found))

    def _content(self, name: str) -> WsgiResponse:
        body = self._store.open(name)
        return WsgiResponse(200, {"Content-Type": "application/octet-stream", "Content-Length": str(body.size)}, body)

    def _delete(self, name: str) -> WsgiResponse:
        self._store.get(name)
        if self._is_used(name):
            raise ApiError(409, "an unfinished batch needs this file", code="file_in_use", param="id",
                           headers=(("x-should-retry", "false"),))  # fmt: skip
        self._store.delete(name)
        return json_response({"id": name, "object": "file", "deleted": True})


def seconds_kept(anchor: object, seconds: object) -> int:
    """Return for how long a file is kept.

    Args:
        anchor: From when on; only ``created_at`` makes sense.
        seconds: A number, or a text of digits; ``None`` for the usual time.

    Raises:
        ApiError: They make no sense (400).
    """
    if seconds is None and anchor == "created_at":
        return KEPT
    text = str(seconds)
    is_number = not isinstance(seconds, bool) and text.isascii() and text.isdigit() and len(text) < 10
    if anchor != "created_at" or not is_number or not SHORTEST <= int(text) <= LONGEST:
        raise ApiError(
            400,
            f"a file is kept from {SHORTEST} to {LONGEST} seconds after created_at",
            code="invalid_value",
            param="expires_after",
        )
    return int(text)
