"""The conversation that ``--continue`` goes on with."""

from pathlib import Path
from typing import Dict

import pytest

from copilot_sync.auth.caches import FileCache
from copilot_sync.cli.last_conversation import LastConversation
from copilot_sync.models import Conversation

API = "https://api.example"


def conversation(identifier: str, message_id: str) -> Conversation:
    return Conversation.from_dict({"conversation_id": identifier, "message_id": message_id})


def test_the_last_conversation_of_a_host_is_kept(tmp_path: Path) -> None:
    """With the id of its last message; each host has one of its own."""
    store = FileCache(tmp_path / "new" / "conversations.json")
    for number in "12":
        LastConversation(store, API).save(conversation(number, "m" + number))
    LastConversation(store, "https://other.example").save(conversation("3", "m3"))
    assert LastConversation(store, API).load() == conversation("2", "m2")
    assert LastConversation(store, "https://third.example").load() is None


class _Store:
    def __init__(self, kept: str) -> None:
        self.kept: Dict[str, str] = {API: kept}

    def get(self, key: str) -> str:
        return self.kept[key]

    def set(self, key: str, value: str, timeout: int) -> None:
        self.kept[key] = value


@pytest.mark.parametrize(
    "kept", ["", "text", "5", "[]", "{}", '{"conversation_id": 5}', '{"conversation_id": ""}', "[" * 100_000],
    ids=["empty", "text", "a number", "a list", "no id", "a number as id", "an empty id", "too deep"],
)  # fmt: skip
def test_garbage_is_as_good_as_nothing(kept: str) -> None:
    """It is no reason to fail, and the next conversation replaces it."""
    store = _Store(kept)
    assert LastConversation(store, API).load() is None
    LastConversation(store, API).save(conversation("1", "m"))
    assert LastConversation(store, API).load() == conversation("1", "m")


def test_a_discarded_conversation_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """However often it was saved; another one that is discarded changes nothing."""
    store = FileCache(tmp_path / "conversations.json")
    LastConversation(store, API).save(conversation("1", "m1"))
    last = LastConversation(store, API)
    last.discard(conversation("1", "m1"))
    assert last.load() == conversation("1", "m1")
    for message_id in ("m2", "m3"):
        last.save(conversation("2", message_id))
    last.discard(conversation("other", "m2"))
    assert last.load() == conversation("2", "m3")
    last.discard(conversation("2", "m3"))
    assert last.load() == conversation("1", "m1")
