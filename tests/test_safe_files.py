"""Folders that are made for files of ours."""

import os
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

import pytest

from copilot_sync import Ledger
from copilot_sync.answer_folder import AnswerFolder
from copilot_sync.auth.caches import FileCache
from copilot_sync.contrib.openai_gateway.guard import key_of_user
from copilot_sync.ledger.entries import LedgerEntry
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.shared_state import FolderStore
from copilot_sync.safe_files import make_folder, rewriting

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the modes are those of POSIX")

ENTRY = LedgerEntry(datetime.now(timezone.utc), "auto")


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(make_folder, id="a folder"),
        pytest.param(lambda folder: FileCache(f"{folder}/tokens.json").set("key", "value", 9), id="tokens"),
        pytest.param(lambda folder: AnswerFolder(folder).set("key", "value", 9), id="answers"),
        pytest.param(lambda folder: FolderStore(folder).apply("one", "admit", RateRules(9), "me"), id="limits"),
        pytest.param(lambda folder: Ledger(f"{folder}/ledger.sqlite3").write([ENTRY]), id="ledger"),
        pytest.param(lambda folder: key_of_user({}, folder), id="key"),
        pytest.param(lambda folder: _write_login(f"{folder}/login.json"), id="login"),
    ],
)
def test_folders_above_are_their_owners_alone_too(write: Callable[[str], object], tmp_path: Path) -> None:
    """Another user can't see what is in the user's state folder, whichever file was the first in it."""
    folder = tmp_path / "state" / "copilot-sync" / "deep"
    write(str(folder))
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent, folder.parents[1])] == [0o700] * 3


def _write_login(path: str) -> None:
    with rewriting(path, 0o600) as file:
        file.write(b"{}")


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """It may be shared on purpose."""
    tmp_path.chmod(0o755)
    make_folder(str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    with pytest.raises(NotADirectoryError):
        make_folder(os.path.join(os.devnull, "a", "b"))


def test_a_drive_that_is_missing_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a root may be missing, and above it there is nothing to make."""
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "exists", lambda path: False)
        patch.setattr(os.path, "isdir", lambda path: False)
        with pytest.raises(FileExistsError):  # from POSIX, which does have a root
            make_folder("/missing/folder")
