"""The fixture ``copilot_emulator``, used by a test of another project."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def test_the_fixture_serves_for_one_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator of its own for each test, closed after it."""
    # Only this plugin, and by its own name, whether or not it is installed as an entry point.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import pytest

        served = []

        @pytest.mark.parametrize("time", [1, 2])
        def test_with_an_emulator(copilot_emulator, time):
            served.append(copilot_emulator)
            assert copilot_emulator.api_url.startswith("http://127.0.0.1:")
            assert copilot_emulator.requests == []

        def test_after_that():
            assert len(set(served)) == 2
        """
    )
    result = pytester.runpytest_inprocess("-p", "copilot_sync.emulator.pytest_plugin")
    result.assert_outcomes(passed=3)
