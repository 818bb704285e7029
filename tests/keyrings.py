"""Keyrings of the interface that the library ``keyring`` documents, for tests that store a login in one."""

from typing import Any, Dict, Iterator, Optional, Tuple

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked


class MemoryKeyring(KeyringBackend):
    """Keeps everything in memory; locked, it gives nothing away."""

    priority = 1
    name = "a keyring in memory"

    def __init__(self) -> None:
        super().__init__()
        self.kept: Dict[Tuple[str, str], str] = {}
        self.failure: Optional[Exception] = None

    def lock(self) -> None:
        self.failure = KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> Optional[str]:
        if self.failure is not None:
            raise self.failure
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def memory_keyring() -> Iterator[MemoryKeyring]:
    """The keyring of the system, for one test."""
    before: Any = keyring.get_keyring()
    own = MemoryKeyring()
    keyring.set_keyring(own)
    yield own
    keyring.set_keyring(before)
