"""The threads of ``copilot-sync serve``: as many as are needed at once, and no more than there may be."""

import threading
from typing import Iterator, List
from unittest.mock import Mock

import pytest
from support import PATIENCE, wait_for, wait_until

pytest.importorskip("waitress")

from waitress.task import ThreadedTaskDispatcher

from copilot_sync.cli.serve_threads import GrowingDispatcher


class Request:
    """Waits until it is let go, and notes who answers it."""

    def __init__(self, is_let_go: bool = False) -> None:
        self.thread = 0
        self.was_cancelled = False
        self.begun = threading.Event()
        self.let_go = threading.Event()
        if is_let_go:
            self.let_go.set()

    def service(self) -> None:
        self.thread = threading.get_ident()
        self.begun.set()
        wait_for(self.let_go)

    def cancel(self) -> None:
        self.was_cancelled = True


@pytest.fixture
def dispatcher() -> Iterator[GrowingDispatcher]:
    dispatcher = GrowingDispatcher(10)
    yield dispatcher
    assert dispatcher.shutdown(timeout=PATIENCE)


def idle(dispatcher: GrowingDispatcher) -> int:
    with dispatcher.lock:
        return len(dispatcher.threads) - int(dispatcher.active_count)


def test_requests_one_after_the_other_share_a_few_threads(dispatcher: GrowingDispatcher) -> None:
    """However many there are."""
    for _ in range(30):
        wait_until(lambda: idle(dispatcher) == 4)
        request = Request(is_let_go=True)
        dispatcher.add_task(request)
        wait_for(request.begun)
    assert len(dispatcher.threads) == 4


def test_requests_at_once_have_a_thread_each(dispatcher: GrowingDispatcher) -> None:
    """Up to the most that there may be; what is left waits for the first that is free."""
    requests: List[Request] = [Request() for _ in range(12)]
    for request in requests:
        dispatcher.add_task(request)
    for request in requests[:10]:
        wait_for(request.begun)
    assert len({request.thread for request in requests[:10]}) == len(dispatcher.threads) == 10
    assert not requests[10].begun.is_set()
    for request in requests[:2]:
        request.let_go.set()
    for request in requests:
        wait_for(request.begun)
        request.let_go.set()


def test_there_may_be_fewer_than_it_begins_with() -> None:
    """One is enough."""
    dispatcher = GrowingDispatcher(1)
    requests = [Request(is_let_go=True) for _ in range(3)]
    for request in requests:
        dispatcher.add_task(request)
    for request in requests:
        wait_for(request.begun)
    assert len({request.thread for request in requests}) == 1
    assert dispatcher.shutdown(timeout=PATIENCE)


def test_a_request_waits_if_there_can_be_no_more_threads(
    dispatcher: GrowingDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until one of those there are is free. When there can be more again, there are."""
    wait_until(lambda: idle(dispatcher) == 4)
    requests: List[Request] = [Request() for _ in range(6)]
    for request in requests[:4]:
        dispatcher.add_task(request)
    for request in requests[:4]:
        wait_for(request.begun)
    with monkeypatch.context() as limited:
        limited.setattr(ThreadedTaskDispatcher, "start_new_thread", Mock(side_effect=RuntimeError("no more threads")))
        for request in requests[4:]:
            dispatcher.add_task(request)
    assert len(dispatcher.threads) == 4
    requests[0].let_go.set()
    wait_for(requests[4].begun)
    late = Request()
    dispatcher.add_task(late)
    assert len(dispatcher.threads) == 5
    for request in (*requests, late):
        request.let_go.set()
    wait_for(late.begun)


def test_there_are_no_more_once_it_ends(dispatcher: GrowingDispatcher) -> None:
    """A request that comes then is dropped with the others."""
    wait_until(lambda: idle(dispatcher) == 4)
    requests = [Request() for _ in range(4)]
    for request in requests:
        dispatcher.add_task(request)
    for request in requests:
        wait_for(request.begun)
    dispatcher.set_thread_count(0)
    late = Request(is_let_go=True)
    dispatcher.add_task(late)
    assert len(dispatcher.threads) == 4
    for request in requests:
        request.let_go.set()
    wait_until(lambda: not dispatcher.threads)
    assert dispatcher.shutdown(timeout=PATIENCE)
    assert late.was_cancelled and not late.begun.is_set()
