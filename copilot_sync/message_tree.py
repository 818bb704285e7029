"""The messages of a thread as the tree that they are. Pure: no I/O and no clock.

The first question has the parent ``root``, an answer has its question, a question has the answer before it. An edited
question and a second answer are siblings under the same parent (public captures, 2026). A thread whose first messages
are gone has questions whose parents it does not list: they count as beginnings.
"""

import re
from collections import defaultdict
from dataclasses import replace
from typing import DefaultDict, Dict, List, Optional, Set, Tuple

from copilot_sync.models import Message
from copilot_sync.times import read_date

_FRACTION = re.compile(r"[.,](\d{1,18})")


def newest_leaf(messages: List[Message]) -> Optional[Message]:
    """Return the newest of the messages that nothing follows; ``None`` if there are no messages.

    The newest is the one that was created last. Of messages without a date, or created at the same time, it is the
    one that is listed last.
    """
    places = _leaves(messages) or range(len(messages))  # a tree that goes round has no leaves
    newest = max(places, key=lambda place: (*_age_key(messages[place]), place), default=None)
    return None if newest is None else messages[newest]


def branch_to(messages: List[Message], last: Message) -> List[Message]:
    """Return the messages from the beginning of a thread to one of its messages, that one included."""
    others: Dict[Optional[str], Message] = {message.id: message for message in messages if message.id != last.id}
    branch: List[Message] = []
    message: Optional[Message] = last
    while message is not None:
        branch.append(message)
        message = others.pop(message.parent_id, None)  # taken out, because a tree may go round
    return branch[::-1]


def answer_to_go_on_from(messages: List[Message]) -> Optional[Message]:
    """Return the answer that the next question of a thread follows: the last one on the way to its newest leaf.

    A question that has no answer is passed over, because a question follows an answer (public captures, 2026).

    Returns:
        The answer; ``None`` if there is none, so that the next question begins the thread.
    """
    branch = newest_branch(messages)
    return next((message for message in reversed(branch) if message.role == "assistant"), None)


def newest_branch(messages: List[Message], through: Optional[str] = None) -> List[Message]:
    """Return the branch of a thread that goes on: the messages from its beginning to its newest leaf.

    A message without the id of a parent follows the one that is listed before it, so a thread without any such ids is
    a single branch.

    Args:
        messages: The messages of a thread, as ``Client.messages`` lists them.
        through: The id of a message. Then it is the newest branch through that message, if there is one. Default: the
            newest of all.
    """
    linked = _linked(messages)
    leaf = newest_leaf((_from(linked, through) if through else []) or linked)
    return [] if leaf is None else branch_to(linked, leaf)


def count_branches(messages: List[Message]) -> int:
    """Count the branches of a thread: each ends with a message that nothing follows."""
    return len(_leaves(_linked(messages)))


def _leaves(messages: List[Message]) -> List[int]:
    """Return the places of the messages that nothing follows."""
    parents = {message.parent_id for message in messages}
    return [place for place, message in enumerate(messages) if message.id not in parents]


def _linked(messages: List[Message]) -> List[Message]:
    """Return the messages with a parent for each but the first."""
    befores: List[Optional[str]] = [None, *[message.id for message in messages]]
    return [
        message if message.parent_id is not None else replace(message, parent_id=before)
        for message, before in zip(messages, befores)
    ]


def _from(messages: List[Message], first: str) -> List[Message]:
    """Return a message and all that follow it, in the order in which they are listed."""
    children: DefaultDict[Optional[str], List[str]] = defaultdict(list)
    for message in messages:
        children[message.parent_id].append(message.id)
    found: Set[str] = set()
    pending = [first]
    while pending:
        identifier = pending.pop()
        found.add(identifier)
        pending += children.pop(identifier, [])  # taken out, because a tree may go round
    return [message for message in messages if message.id in found]


def _age_key(message: Message) -> Tuple[float, str]:
    """Sort messages by when they were created. Dates have up to nine digits behind the second."""
    written = message.created_at or ""
    moment = read_date(written)
    if moment is None:
        return float("-inf"), ""
    fraction = _FRACTION.search(written)
    return moment, fraction.group(1) if fraction else ""
