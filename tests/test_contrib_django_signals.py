"""The signal of the Django application: what the site's client does, told to receivers."""

import os
import signal
from typing import Any, Iterator, List

import pytest
from support import configure_django

pytest.importorskip("django")

from django.test import override_settings

from copilot_sync import CallEvent
from copilot_sync.contrib.django import get_client
from copilot_sync.contrib.django.signals import call_event
from copilot_sync.emulator import Emulator

configure_django()


@pytest.fixture
def events() -> Iterator[List[CallEvent]]:
    """What a receiver was sent."""
    heard: List[CallEvent] = []

    def receive(event: CallEvent, **kwargs: Any) -> None:
        heard.append(event)

    call_event.connect(receive)
    yield heard
    call_event.disconnect(receive)


@pytest.fixture
def site(emulator: Emulator) -> Iterator[List[CallEvent]]:
    """A site, and what a hook of its own hears."""
    heard: List[CallEvent] = []
    setting = {"API_KEY": emulator.api_key, "API_URL": emulator.api_url, "HOOKS": heard.append}
    with override_settings(COPILOT_SYNC=setting):
        yield heard


def test_receivers_are_sent_each_step(site: List[CallEvent], events: List[CallEvent]) -> None:
    """As the hooks of the setting are."""
    get_client().ask("Hi")
    assert [event.kind for event in events] == ["started", "first_piece", "finished"]
    assert site == events


def test_what_a_receiver_raises_is_logged(
    site: List[CallEvent], events: List[CallEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """The others are called, and the answer comes."""

    class ReceiverError(Exception):
        pass

    def fail(**kwargs: Any) -> None:
        raise ReceiverError

    call_event.connect(fail)
    try:
        assert get_client().ask("Hi").text == "Hi"
    finally:
        call_event.disconnect(fail)
    assert len(events) == 3
    records = [record for record in caplog.records if record.name == "copilot_sync.hooks"]
    assert [record.args for record in records] == [("started",), ("first_piece",), ("finished",)]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
def test_what_a_handler_raises_in_a_receiver_gets_through(site: List[CallEvent]) -> None:
    """Before what other receivers have raised."""

    class SoftLimitError(Exception):
        pass

    def handler(number: int, frame: Any) -> None:
        raise SoftLimitError

    def fail(**kwargs: Any) -> None:
        raise LookupError

    def interrupted(**kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    call_event.connect(fail)
    call_event.connect(interrupted)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(SoftLimitError):
            get_client().ask("Hi")
    finally:
        signal.signal(signal.SIGUSR1, before)
        call_event.disconnect(fail)
        call_event.disconnect(interrupted)
