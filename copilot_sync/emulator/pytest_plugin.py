"""The fixture ``copilot_emulator``: each test that asks for it has an emulator of its own.

pytest loads this module whenever it starts, in every project that has the package installed. So it imports
nothing of the package before a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from copilot_sync.emulator import Emulator


@pytest.fixture
def copilot_emulator() -> Iterator[Emulator]:
    """A local Copilot that serves until the test ends; see ``copilot_sync.emulator.Emulator``."""
    from copilot_sync.emulator import Emulator

    with Emulator() as emulator:
        yield emulator
