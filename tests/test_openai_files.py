"""``/v1/files`` of the gateway: what is taken, what is kept, and for how long."""

import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from gateway import FORM, call, environ_of, form, gateway_of, open_response, upload
from support import nothing_left_open

from copilot_sync.contrib.openai_gateway import Gateway, file_store, uploads
from copilot_sync.contrib.openai_gateway.file_store import FileStore, Wanted
from copilot_sync.contrib.openai_gateway.request_body import LIMIT
from copilot_sync.emulator import Emulator

pytest.importorskip("multipart")


@pytest.fixture
def gateway(tmp_path: Path, copilot_emulator: Emulator) -> Iterator[Gateway]:
    with nothing_left_open():
        with gateway_of(copilot_emulator, batches=tmp_path / "kept") as made:
            yield made
            made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are."""
    return tmp_path / "kept" / "files"


def kept(folder: Path) -> List[str]:
    return sorted(path.suffix for path in folder.iterdir() if path.name != "lock")


def test_a_file_is_uploaded_and_read_again(gateway: Gateway) -> None:
    """Byte by byte as it was."""
    data = b"{}\r\n\r\n--limi\n\xff" + bytes(range(256)) * 1000
    made = upload(gateway, data)
    assert made.status == 200
    file = made.json
    assert (file["object"], file["purpose"], file["status"]) == ("file", "batch", "processed")
    assert (file["filename"], file["bytes"]) == ("in.jsonl", len(data))
    assert file["expires_at"] - file["created_at"] == 30 * 24 * 3600
    assert call(gateway, f"/v1/files/{file['id']}").json == file
    content = call(gateway, f"/v1/files/{file['id']}/content")
    assert (content.body, content.headers["Content-Length"]) == (data, str(len(data)))
    assert content.headers["Content-Type"] == "application/octet-stream"


def test_its_form_may_come_in_any_pieces(gateway: Gateway) -> None:
    """Wherever the network has cut it."""

    class Pieces(io.BytesIO):
        def read(self, size: Any = -1) -> bytes:
            return super().read(min(size, 7))

    body = form(b"one\n\r\ntwo", purpose="batch")
    more = {**FORM, "CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": Pieces(body)}
    file = call(gateway, "/v1/files", b"", "POST", **more).json
    assert call(gateway, f"/v1/files/{file['id']}/content").body == b"one\n\r\ntwo"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_nobody_else_may_read_it(gateway: Gateway, folder: Path) -> None:
    """Neither the files nor the names in the folder."""
    upload(gateway, b"{}")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


def test_a_file_is_deleted(gateway: Gateway, folder: Path) -> None:
    """With its content."""
    id = upload(gateway, b"{}").json["id"]
    assert call(gateway, f"/v1/files/{id}", method="DELETE").json == {"id": id, "object": "file", "deleted": True}
    assert kept(folder) == []
    for path, method in ((f"/v1/files/{id}", "GET"), (f"/v1/files/{id}", "DELETE"), (f"/v1/files/{id}/content", "GET")):
        response = call(gateway, path, method=method)
        assert (response.status, response.error["code"]) == (404, "not_found")


def test_files_are_listed_in_pages(gateway: Gateway) -> None:
    """The newest first, or the oldest; those for one purpose alone."""
    ids = [upload(gateway, b"{}").json["id"] for _ in range(3)]
    assert [file["id"] for file in call(gateway, "/v1/files").json["data"]] == ids[::-1]
    page = call(gateway, "/v1/files", QUERY_STRING=f"order=asc&limit=1&after={ids[0]}").json
    assert ([file["id"] for file in page["data"]], page["has_more"]) == ([ids[1]], True)
    assert len(call(gateway, "/v1/files", QUERY_STRING="purpose=batch").json["data"]) == 3
    assert call(gateway, "/v1/files", QUERY_STRING="purpose=batch_output").json["data"] == []
    for query in ("limit=0", "limit=10001", "limit=x", "order=up", "after=file-x"):
        assert call(gateway, "/v1/files", QUERY_STRING=query).status == 400


@pytest.mark.parametrize(
    "path",
    ["/v1/files/file-x", "/v1/files/../lock", "/v1/files/lock", f"/v1/files/file-{'0' * 32}", "/v1/filesx",
     "/v1/files/x/y"],
)  # fmt: skip
def test_an_id_is_no_path(gateway: Gateway, path: str) -> None:
    """What is none of our ids leads nowhere."""
    upload(gateway, b"{}")
    assert call(gateway, path).status == 404


def test_another_method_is_refused(gateway: Gateway) -> None:
    """And the right one is named."""
    assert call(gateway, "/v1/files", method="PUT").headers["Allow"] == "GET, POST"
    assert call(gateway, "/v1/files/x", method="POST").headers["Allow"] == "GET, DELETE"
    assert call(gateway, "/v1/files/x/content", method="HEAD").headers["Allow"] == "GET"


TWICE = form(b"{}", purpose="batch")[:-11] + form(b"{}")
BAD_FORMS = [
    (b"{}", {"CONTENT_TYPE": "application/json"}, "invalid_content_type"),
    (b"{}", {"CONTENT_TYPE": ""}, "invalid_content_type"),
    (b"{}", {"CONTENT_TYPE": "multipart/form-data"}, "invalid_content_type"),
    (b"{}", FORM, "invalid_form"),
    (form(b"{}", purpose="batch")[:-8], FORM, "invalid_form"),
    (TWICE, FORM, "invalid_form"),
    (form(b"{}", purpose="b" * 2000), FORM, "invalid_form"),
    (form(b"{}", **{f"f{number}": "x" for number in range(20)}), FORM, "invalid_form"),
    (form(b"{}").replace(b'name="file"; filename="in.jsonl"', b'name="purpose"'), FORM, "missing_required_parameter"),
    (form(b"{}"), FORM, "invalid_value"),
    (form(b"{}", purpose="user_data"), FORM, "invalid_value"),
    (form(b"{}", purpose="batch", **{"expires_after[anchor]": "now"}), FORM, "invalid_value"),
    (form(b"{}", purpose="batch", **{"expires_after[seconds]": "60"}), FORM, "invalid_value"),
    (form(b"{}", purpose="batch", **{"expires_after[seconds]": "\xb2"}), FORM, "invalid_value"),
]


@pytest.mark.parametrize(("body", "more", "code"), BAD_FORMS, ids=[str(number) for number in range(len(BAD_FORMS))])
def test_what_is_no_form_for_a_file_is_refused(
    gateway: Gateway, folder: Path, body: bytes, more: Any, code: str
) -> None:
    """And nothing is left of it."""
    response = call(gateway, "/v1/files", body, "POST", **more)
    assert (response.status, response.error["code"]) == (400, code)
    assert kept(folder) == []


def test_what_is_too_large_is_refused(gateway: Gateway, folder: Path) -> None:
    """Whether the length is told or not."""
    response = call(gateway, "/v1/files", b"", "POST", **{**FORM, "CONTENT_LENGTH": str(LIMIT + 1)})
    assert (response.status, response.error["code"]) == (413, "body_too_large")
    large = io.BytesIO(form(b"x" * LIMIT, purpose="batch"))
    more = {**FORM, "CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": large}
    assert call(gateway, "/v1/files", b"", "POST", **more).status == 413
    assert kept(folder) == []


@pytest.mark.parametrize(("name", "words"), [("MOST_FILES", "there are 1 files"), ("MOST_BYTES", "1 bytes together")])
def test_there_are_so_many_files_and_bytes(
    gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    """Then some have to be deleted first. Refused ones leave nothing."""
    id = upload(gateway, b"x").json["id"]
    monkeypatch.setattr(file_store, name, 1)
    response = upload(gateway, b"x")
    assert (response.status, response.error["code"]) == (400, "storage_full")
    assert words in response.error["message"]
    assert kept(folder) == [".data", ".json"]
    call(gateway, f"/v1/files/{id}", method="DELETE")
    assert upload(gateway, b"x").status == 200


def test_a_file_goes_when_its_time_is_over(tmp_path: Path) -> None:
    """Whoever asks for it, or for a list."""
    now = [1000.0]
    store = FileStore(str(tmp_path), clock=lambda: now[0])
    first = store.put(file_store.new_file_id(), Wanted("a", "batch", 3600), [b"one"])
    store.put(file_store.new_file_id(), Wanted("b", "batch", 7200), [b"two", b"three"])
    assert store.room() == file_store.MOST_BYTES - 11
    now[0] += 3600
    with pytest.raises(Exception, match="there is no file"):
        store.get(first.id)
    assert [file.filename for file in store.all()] == ["b"]
    assert kept(tmp_path) == [".data", ".json"]


def test_how_long_it_is_kept_may_be_said(gateway: Gateway) -> None:
    """In seconds after it was made."""
    file = upload(gateway, b"{}", **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}).json
    assert file["expires_at"] - file["created_at"] == 3600


def test_what_killed_processes_left_goes_after_a_while(tmp_path: Path) -> None:
    """It may be somebody's upload until then. What is described stays."""
    now = [0.0]
    store = FileStore(str(tmp_path / "files"), clock=lambda: now[0])
    store.sweep()  # there is no folder yet
    assert store.all() == []
    made = store.put(file_store.new_file_id(), Wanted("a", "batch", 10**10), [b"one"])
    left = [tmp_path / "files" / name for name in (f".copilot-sync-{made.id}.data.00ff00ff", "file-lost.data")]
    for path in left:
        path.touch()
    now[0] = left[0].stat().st_mtime
    store.sweep()
    assert [path.exists() for path in left] == [True, True]
    now[0] += 3601
    store.sweep()
    assert [path.exists() for path in left] == [False, False]
    assert [file.id for file in store.all()] == [made.id]


def test_what_is_no_description_is_no_file(gateway: Gateway, folder: Path) -> None:
    """A disk may have lost it, or a content without its description."""
    id = upload(gateway, b"{}").json["id"]
    folder.joinpath(f"{id}.data").unlink()
    assert call(gateway, f"/v1/files/{id}/content").status == 404
    for text in ("", "[]", '{"id": 1}'):
        folder.joinpath(f"{id}.json").write_text(text)
        assert call(gateway, f"/v1/files/{id}").status == 404
        assert call(gateway, "/v1/files").json["data"] == []


def test_who_reads_half_of_it_leaves_nothing_open(gateway: Gateway) -> None:
    """The server closes what the client does not want."""
    id = upload(gateway, b"x" * 200_000).json["id"]
    status, _, body = open_response(gateway, environ_of(f"/v1/files/{id}/content"))
    assert (status, len(next(body))) == (200, 65536)
    body.close()


def test_without_a_folder_there_are_none(copilot_emulator: Emulator) -> None:
    """And the error says what is missing."""
    with gateway_of(copilot_emulator) as gateway:
        gateway.begin_batches()
        for path in ("/v1/files", "/v1/batches", "/v1/files/x/content"):
            response = call(gateway, path)
            assert (response.status, response.error["code"]) == (501, "not_configured")
            assert response.headers["x-should-retry"] == "false"
            assert "batches=" in response.error["message"]


@pytest.mark.parametrize("found", [None, io])
def test_without_the_parser_uploads_are_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """By the name of the extra that brings it. Another package of the same name is not taken for it."""
    monkeypatch.setitem(sys.modules, "multipart", found)
    response = upload(gateway, b"{}")
    assert (response.status, response.error["code"]) == (501, "not_configured")
    assert "copilot-sync[serve]" in response.error["message"]
    monkeypatch.undo()
    assert uploads._library() is not None


def test_a_folder_that_can_not_be_made_harms_nothing_else(tmp_path: Path, copilot_emulator: Emulator) -> None:
    """What needs it fails, and the log says why."""
    (tmp_path / "file").touch()
    with gateway_of(copilot_emulator, batches=tmp_path / "file") as gateway:
        assert call(gateway, "/v1/models").status == 200
        assert call(gateway, "/v1/files").status == 500


def test_a_full_disk_leaves_nothing(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a file nor its description."""
    upload(gateway, b"one")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert upload(gateway, b"two").status == 500
    assert kept(folder) == [".data", ".json"]
    assert json.loads(next(folder.glob("*.json")).read_text())["bytes"] == 3
