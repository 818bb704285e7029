"""The tests that docs/testing.rst begins with pass. Those with recorders and mocks run in ``tests/engines``."""

from pathlib import Path

from blocks import DOCS, run_tests, texts_of


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """As they stand, each block in a file of its own, with no other settings."""
    blocks = [text for text in texts_of(DOCS / "testing.rst", "python") if "copilot_emulator" in text]
    assert len(blocks) == 2
    assert "3 passed" in run_tests(blocks, tmp_path)
