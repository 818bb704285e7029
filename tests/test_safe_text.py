"""Text that can be sent, whatever it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import CHARACTERS

from copilot_sync.safe_text import well_formed


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain", "plain"),
        ("Grüße 🎉", "Grüße 🎉"),
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\udf89\ud83c", "\ufffd\ufffd"),
        ("\ud83c\udf89", "🎉"),
    ],
    ids=ascii,
)
def test_a_lone_surrogate_is_replaced(text: str, expected: str) -> None:
    """No file, terminal or socket takes one; two halves that belong together become the character they are."""
    assert well_formed(text) == expected


@given(st.text(CHARACTERS), st.text())
def test_well_formed_text_can_be_encoded_and_whole_text_is_left_alone(text: str, whole: str) -> None:
    """Only what no encoding takes is changed."""
    assert well_formed(text).encode("utf-8").decode("utf-8") == well_formed(text)
    assert well_formed(whole) == whole
