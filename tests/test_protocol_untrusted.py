"""A reply as it came, without showing what is in it."""

import json
from typing import Any, List

import pytest

from copilot_sync.protocol.untrusted import RawReply, is_header_value, mappings_in


def test_a_reply_does_not_show_what_was_answered() -> None:
    """Its body may hold a token, its headers cookies."""
    assert "private" not in repr(RawReply(200, {"set-cookie": "user_session=private"}, b'{"token":"private"}'))


@pytest.mark.parametrize(
    "text, fits",
    [
        ("gho_abc123", True),
        ("a b;c=d", True),
        (" a", False),
        ("a ", False),
        ("a\nb", False),
        ("a\tb", False),
        ("\x7f", False),
        ("ä", False),
    ],
    ids=ascii,
)
def test_a_header_value_is_printable_ascii(text: str, fits: bool) -> None:
    """Nothing else can be sent in a header as it is."""
    assert is_header_value(text) is fits


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, []),
        ({"path": "a"}, []),
        ("path", []),
        ([None, 1, "x", [], {}], [{}]),
        ([{"path": "a"}, {"url": None}], [{"path": "a"}, {"url": None}]),
        ([{"\ud800": ["\ud800", {"b": "\udc00"}]}], [{"\ufffd": ["\ufffd", {"b": "\ufffd"}]}]),
        (
            [{"a": float("nan"), "b": [float("inf"), -float("inf"), 1.5, 2, True]}],
            [{"a": None, "b": [None, None, 1.5, 2, True]}],
        ),
    ],
    ids=["nothing", "no list", "text", "other types", "objects", "surrogates", "no numbers"],
)
def test_a_list_of_objects_can_be_written_as_json_again(value: Any, expected: List[Any]) -> None:
    """In UTF-8 and for any reader, whatever Python read."""
    found = list(mappings_in({"references": value}, "references"))
    assert found == expected
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode("utf-8")
