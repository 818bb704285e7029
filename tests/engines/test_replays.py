"""Tools that replay requests, as they are: what they replay is not asked, and what they recorded is."""

from pathlib import Path
from typing import Iterator

import httpretty
import pytest
import vcr

from copilot_sync import Client
from copilot_sync.emulator import Emulator

EVENTS = 'data: {"type":"content","body":"replayed"}\n\ndata: {"type":"complete","id":"1"}\n\n'


def client_of(emulator: Emulator) -> Client:
    return Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None, timeout=20
    )


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as made:
        yield made


def test_a_cassette_is_recorded_and_replayed(emulator: Emulator, client: Client, tmp_path: Path) -> None:
    """By a client that was used before, and by a new one; afterwards both ask again."""
    cassette = str(tmp_path / "cassette.yaml")
    assert client.ask("before").text == "before"
    with vcr.use_cassette(cassette):
        with client_of(emulator) as recorded:
            assert recorded.ask("recorded").text == "recorded"
    asked = len(emulator.requests)
    with vcr.use_cassette(cassette, record_mode="none", allow_playback_repeats=True):
        with client_of(emulator) as new:
            assert new.ask("recorded").text == "recorded"
            assert client.ask("recorded").text == "recorded"
        assert len(emulator.requests) == asked
    assert client.ask("after").text == "after"
    assert new.ask("after").text == "after"
    new.close()


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # of httpretty, since Python 3.12
def test_replayed_sockets_will_do(emulator: Emulator, client: Client) -> None:
    """TLS as well; closing a client in the middle is nothing special."""
    assert client.ask("before").text == "before"
    asked = len(emulator.requests)
    with httpretty.enabled(verbose=False, allow_net_connect=True):
        threads = "https://api.individual.githubcopilot.com/github/chat/threads"
        httpretty.register_uri("POST", threads, body='{"thread_id": "t"}')
        httpretty.register_uri("POST", f"{threads}/t/messages", body=EVENTS, content_type="text/event-stream")
        with Client("key", retry=None, timeout=20) as replayed:
            assert replayed.ask("never").text == "replayed"
        client.close()
    assert len(emulator.requests) == asked
    assert client.ask("after").text == "after"
