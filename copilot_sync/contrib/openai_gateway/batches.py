"""``/v1/batches``, and the files of batches, over a folder.

Threads: any number of threads may call.
"""

import os
import time
from typing import Any, Callable, Dict, Mapping, Optional, Union

from copilot_sync.batch.openai_lines import URL
from copilot_sync.contrib.openai_gateway.batch_records import BatchRecord, BatchRecords
from copilot_sync.contrib.openai_gateway.batch_runner import Ask, BatchRunner
from copilot_sync.contrib.openai_gateway.file_store import FileStore
from copilot_sync.contrib.openai_gateway.files import Files, seconds_kept
from copilot_sync.contrib.openai_gateway.pages import PageQuery, values_of
from copilot_sync.contrib.openai_gateway.request_body import read_json
from copilot_sync.contrib.openai_gateway.wsgi_response import WsgiResponse, check_method, json_response, unknown_url
from copilot_sync.openai_api.chat_request import read_text, wrong_type
from copilot_sync.openai_api.failures import ApiError, not_configured
from copilot_sync.safe_files import make_folder

#: What a client may say of a batch: how many pairs, and how many characters each part has.
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


class Batches:
    """The batches of a gateway. Safe for any thread, and for servers that fork.

    Args:
        folder: Where they are kept.
        ask: Returns what asks, and its pace. Called when there is something to ask.
        clock: Returns the time, in seconds since 1970.
    """

    def __init__(
        self, folder: "Union[str, os.PathLike[str]]", ask: Ask, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = path = os.path.abspath(os.fsdecode(folder))
        self._store = FileStore(os.path.join(path, "files"), clock)
        self._records = BatchRecords(os.path.join(path, "batches"), clock)
        self._files = Files(self._store, self._is_used)
        self._runner = BatchRunner(self._store, self._records, ask, clock)

    def begin(self) -> None:
        """Go on with unfinished batches, in a thread. See ``BatchRunner.begin``."""
        if not self._runner.has_begun:
            make_folder(self._folder)
            self._runner.begin()

    def close(self) -> None:
        """End the thread, and what is under way. See ``BatchRunner.close``."""
        self._runner.close()

    def respond(self, path: str, method: str, environ: Mapping[str, Any]) -> WsgiResponse:
        """Answer a request.

        Args:
            path: What follows ``/v1/``: ``files`` or ``batches``, and more.
            method: The method.
            environ: The request.

        Raises:
            ApiError: It can't be met.
        """
        kind, _, rest = path.partition("/")
        if kind == "files":
            return self._files.respond(rest, method, environ)
        name, _, rest = rest.partition("/")
        if not name:
            check_method(method, "GET", "POST")
            return self._create(environ) if method == "POST" else self._listed(environ)
        if not rest:
            check_method(method, "GET")
            return json_response(self._records.get(name).to_dict())
        if rest == "cancel":
            check_method(method, "POST")
            record = self._records.cancel(name)
            self._runner.wake()
            return json_response(record.to_dict())
        raise unknown_url("/v1")

    def _create(self, environ: Mapping[str, Any]) -> WsgiResponse:
        record = self._created(read_json(environ))
        self._runner.wake()
        return json_response(record.to_dict())

    def _created(self, body: Mapping[str, Any]) -> BatchRecord:
        if body.get("endpoint") != URL:
            raise ApiError(400, f"endpoint must be {URL}", code="invalid_value", param="endpoint")
        if body.get("completion_window") != "24h":
            raise ApiError(400, "completion_window must be 24h", code="invalid_value", param="completion_window")
        name = read_text(body, "input_file_id")
        if not name:
            raise wrong_type("input_file_id", "the id of a file")
        if self._store.get(name).purpose != "batch":
            raise ApiError(400, "the purpose of the file is not batch", code="invalid_value", param="input_file_id")
        kept = body.get("output_expires_after") or {"anchor": "created_at"}
        if not isinstance(kept, dict):
            raise wrong_type("output_expires_after", "an object")
        seconds = seconds_kept(kept.get("anchor"), kept.get("seconds"))
        return self._records.create(URL, name, _metadata_of(body), seconds)

    def _listed(self, environ: Mapping[str, Any]) -> WsgiResponse:
        values = values_of(str(environ.get("QUERY_STRING", "")))
        page = PageQuery.from_values(values, usual=20, most=100)
        return json_response(page.page_of([record.to_dict() for record in self._records.all()]))

    def _is_used(self, name: str) -> bool:
        return any(record.input_file_id == name for record in self._records.unfinished())


def _metadata_of(body: Mapping[str, Any]) -> Optional[Dict[str, str]]:
    """Return what a client says of a batch.

    Raises:
        ApiError: It is not what it may be (400).
    """
    value = body.get("metadata")
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > _MOST_PAIRS:
        raise wrong_type("metadata", f"an object of at most {_MOST_PAIRS} pairs")
    for key, text in value.items():
        if not isinstance(text, str) or len(key) > _LONGEST_KEY or len(text) > _LONGEST_VALUE:
            words = f"of keys of {_LONGEST_KEY} characters and strings of {_LONGEST_VALUE} at most"
            raise wrong_type("metadata", words)
    return value


def no_folder() -> ApiError:
    """The error if the gateway keeps no batches."""
    return not_configured("this gateway keeps no batches: it needs a folder, Gateway(batches=...)")
