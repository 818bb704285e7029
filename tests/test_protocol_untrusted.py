"""A reply as it came, without showing what is in it."""

import pytest

from copilot_sync.protocol.untrusted import RawReply, is_header_value


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
