"""What an answer used, as footnotes for a person: one line each, that fits the terminal.

The references are whatever the service sent. Files have ``path``, ``repoOwner`` and ``repoName``, web results ``title``
and ``url`` (public captures, 2026); anything may be missing or be no text.
"""

from typing import Any, Iterator, Mapping, Sequence

from copilot_sync.cli.language import _
from copilot_sync.terminal_text import columns_of, one_line, shortened

#: Footnotes of one answer at most.
MOST = 20
#: What names a reference: the first of these that it has.
_NAMES = ("path", "title", "name")
_GAP = "  "
#: Characters of a text that are looked at.
_LONGEST = 1000
#: Columns for the name that a long address has to leave free.
_LEAST_NAME = 12


def footnotes(references: Sequence[Mapping[str, Any]], width: int) -> Iterator[str]:
    """Yield the lines for some references: number, name, repository and address.

    A name that is too long is cut. An address is left out if there is no room for all of it, because a part of one
    leads nowhere.

    Args:
        references: The references.
        width: Columns of a line.
    """
    for number, reference in enumerate(references[:MOST], 1):
        mark = f"[{number}] "
        yield shortened(mark + _described(reference, width - len(mark)), width)
    left = len(references) - MOST
    if left > 0:
        yield shortened(_("and {count} more; --json shows all").format(count=left), width)


def _described(reference: Mapping[str, Any], width: int) -> str:
    repository, url = _repository(reference), _text(reference, "url")
    name = next(filter(None, (_text(reference, key) for key in _NAMES)), "") or repository
    name = name or _text(reference, "type") or _("unnamed")
    front = name if repository in ("", name) else name + _GAP + repository
    room = width - columns_of(_GAP + url)
    if not url or room < min(columns_of(name), _LEAST_NAME):
        return front
    return shortened(front, room) + _GAP + url


def _repository(reference: Mapping[str, Any]) -> str:
    name = _text(reference, "repoName") or _text(reference, "repo")
    owner = _text(reference, "repoOwner") or _text(reference, "owner")
    return f"{owner}/{name}" if owner and name and "/" not in name else name


def _text(reference: Mapping[str, Any], key: str) -> str:
    value = reference.get(key)
    return one_line(value[:_LONGEST]) if isinstance(value, str) else ""
