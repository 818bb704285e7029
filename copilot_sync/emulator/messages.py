"""The messages of a thread, with the fields that the wire lists (public captures, 2026).

A thread's messages are a tree: each names its parent, and the first questions have the parent ``"root"``. They are
kept as one list in the order in which they were begun, each answer right behind its question.

``contentParts`` and ``skillExecutions`` are known by their names alone, so they are always empty here.
Pure functions, except that a new message reads the clock.
"""

from __future__ import annotations

import uuid
from typing import Any, Dict, List, Mapping, Sequence

from copilot_sync.emulator.timestamps import timestamp

ROOT = "root"
"""The parent of a message that follows none."""


def new_question(thread_id: str, body: Mapping[str, Any], parent: str) -> Dict[str, Any]:
    """Return the user's message that a request's body stands for."""
    return _message(thread_id, "user", body, parent, body["content"], body["references"])


def new_answer(thread_id: str, body: Mapping[str, Any], parent: str) -> Dict[str, Any]:
    """Return the assistant's message that answers a request's body, without its text."""
    return _message(thread_id, "assistant", body, parent, "", [])


def _message(
    thread_id: str, role: str, body: Mapping[str, Any], parent: str, content: str, references: List[Any]
) -> Dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "threadID": thread_id,
        "parentMessageID": parent,
        "role": role,
        "content": content,
        "contentParts": [],
        "createdAt": timestamp(),
        "intent": body["intent"],
        "model": body["model"],
        "generatedWithAuto": False,
        "interrupted": False,
        "references": references,
        "skillExecutions": [],
        "usage": None,
    }


def has_message(messages: Sequence[Mapping[str, Any]], message_id: str) -> bool:
    """Return whether one of the messages has this id."""
    return any(message["id"] == message_id for message in messages)


def newest_id(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the id of the message that was begun last, ``ROOT`` if there is none."""
    return str(messages[-1]["id"]) if messages else ROOT


def insert_answer(messages: List[Dict[str, Any]], answer: Dict[str, Any]) -> None:
    """Insert an answer behind the message that it answers, even if others came in between.

    If that message is gone, the answer becomes the last one.
    """
    ids = [message["id"] for message in messages]
    parent = answer["parentMessageID"]
    messages.insert(ids.index(parent) + 1 if parent in ids else len(ids), answer)


def name_from(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a name for a thread, made of its first question; ``""`` if it has no messages."""
    return " ".join(messages[0]["content"].split())[:60] if messages else ""
