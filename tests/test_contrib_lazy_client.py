"""The one client of a process, and the names that configure it."""

import os
from typing import List

import pytest
from support import Worker, fork

from copilot_sync import Client
from copilot_sync.contrib.lazy_client import CLIENT_OPTIONS, LazyClient, option_names


def test_it_is_made_when_it_is_first_needed_and_once() -> None:
    """However many threads ask for it at that moment."""
    made: List[Client] = []

    def make() -> Client:
        made.append(Client("key"))
        return made[-1]

    one = LazyClient(make)
    assert made == []
    got = [worker.result() for worker in [Worker(one.get) for _ in range(8)]]
    assert {id(client) for client in got} == {id(made[0])}
    assert len(made) == 1


def test_what_could_not_be_made_is_tried_again() -> None:
    """A setting that was put right needs no restart."""
    keys = iter(["a\nb", "right"])
    one = LazyClient(lambda: Client(next(keys)))
    with pytest.raises(ValueError, match="api_key"):
        one.get()
    assert isinstance(one.get(), Client)


def test_closing_forgets_it() -> None:
    """Any number of times; the next one is another."""
    one = LazyClient(lambda: Client("key"))
    one.close()
    before = one.get()
    one.close()
    one.close()
    assert one.get() is not before


def test_a_forked_child_does_not_wait_for_its_parents_threads() -> None:
    """One may be making the client at the moment of the fork, and is not there in the child."""
    one = LazyClient(lambda: Client("key"))
    with one._lock:
        child = fork()
        if child == 0:  # pragma: no cover - the child's own; its status tells how it went
            os._exit(0 if one._lock.acquire(timeout=5) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_names_are_those_of_the_client() -> None:
    """In upper case, as configurations have them; others have to be announced."""
    assert option_names(["API_KEY", "BEAT"], ("beat",), "it") == {"API_KEY": "api_key", "BEAT": "beat"}
    assert {"api_key", "cookies", "model", "verify"} <= set(CLIENT_OPTIONS)
    with pytest.raises(ValueError, match="it has no 'api_key'; there are ANSWER_CACHE, API_KEY, API_URL, BEAT, "):
        option_names(["api_key"], ("beat",), "it")
