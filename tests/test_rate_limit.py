"""The limits of an account: what its clients may, in one process and in several, and after a refusal of any of them."""

import asyncio
import pickle
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from driven import DRIVERS
from support import PATIENCE, Worker, nothing_left_open, wait_until

from copilot_sync import (
    AsyncClient,
    Client,
    MissingCredentialsError,
    QuotaExceededError,
    RateLimit,
    RateLimitError,
    RetryPolicy,
    Timeout,
    batch,
)
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.shared_state import FolderStore

ONE = RateLimit(concurrency=1)


def client_of(emulator: Emulator, **options: Any) -> Client:
    return Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, **options)


def messages(emulator: Emulator) -> int:
    return sum(request.stage == "message" for request in emulator.requests)


def account_of(client: Client) -> str:
    return client._session.find_account().account


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """One with an account that no other test has heard of."""
    resource_tracker.ensure_running()  # it stays until this process ends
    with nothing_left_open(), Emulator() as served:
        yield served


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "folder"])
def test_no_more_than_the_limit_are_under_way(driver: str, is_shared: bool, emulator: Emulator, tmp_path: Path) -> None:
    """However they are read. The next begins when one has ended."""
    if driver == "uvloop":
        pytest.importorskip("uvloop")
    shared = tmp_path if is_shared else None
    with client_of(emulator, rate_limit=ONE, shared=shared) as client, client_of(
        emulator, rate_limit=ONE, shared=shared
    ) as other:
        stream = other.stream("first")
        next(stream)
        pieces: List[str] = []
        worker = Worker(lambda: DRIVERS[driver](client.stream("second"), pieces))
        limiter = other._options.guards[0]._limiter
        wait_until(lambda: bool(limiter._queue))
        assert messages(emulator) == 1
        stream.close()
        worker.result()
        assert "".join(pieces) == "second"
        assert messages(emulator) == 2


def test_a_first_call_over_a_warm_connection_needs_no_thread(emulator: Emulator) -> None:
    """If the limits are in memory, and let it in."""
    with client_of(emulator, rate_limit=RateLimit(per_minute=100)) as client:
        client.ask("hi")
        names: List[str] = []
        stream = client.stream("hi")
        while stream.poll(1.0) != "":
            names += [thread.name for thread in threading.enumerate() if thread.name == "copilot-sync-stream"]
        assert names == []


def test_a_call_that_is_refused_has_sent_nothing(emulator: Emulator) -> None:
    """Not even for a token."""
    limit = RateLimit(per_minute=1)
    with client_of(emulator, rate_limit=limit, retry=RetryPolicy(wait_for_limits=False)) as client:
        client.ask("hi")
        asked = len(emulator.requests)
        with pytest.raises(RateLimitError) as caught:
            client.ask("hi")
        assert caught.value.retry_after is not None and caught.value.retry_after > 50
        assert caught.value.stage == "limit"
        with pytest.raises(RateLimitError):
            client.ask("hi", timeout=Timeout(total=5), retry=RetryPolicy())
        assert len(emulator.requests) == asked


def test_without_credentials_there_is_no_account() -> None:
    """Their error comes first."""
    with Client(api_url="http://127.0.0.1:9", cookies={}, rate_limit=ONE) as client:
        with pytest.raises(MissingCredentialsError):
            client.ask("hi")


def test_accounts_have_limits_of_their_own(emulator: Emulator) -> None:
    """Clients of one share them, in whatever form its credentials came."""
    with Emulator() as second, client_of(emulator, rate_limit=ONE) as one, client_of(second, rate_limit=ONE) as two:
        assert account_of(one) != account_of(two)
        with one.stream("hi") as stream:
            next(stream)
            assert two.ask("hi").text == "hi"


def test_a_token_is_an_account_as_well(emulator: Emulator) -> None:
    """Two clients that were given the same one share its limit."""
    given: Any = {"api_url": emulator.api_url, "rate_limit": RateLimit(per_minute=1), "retry": None}
    with Client(emulator.api_key, **given) as one, Client(emulator.api_key, **given) as two:
        one.ask("hi")
        with pytest.raises(RateLimitError):
            two.ask("hi", retry=RetryPolicy(wait_for_limits=False))


def test_a_client_may_go_to_another_process(emulator: Emulator, tmp_path: Path) -> None:
    """With its limits."""
    with client_of(emulator, rate_limit=ONE, shared=tmp_path) as client:
        client.ask("hi")
        with pickle.loads(pickle.dumps(client)) as copy:
            guard = copy._options.guards[0]
            assert copy.ask("hi").text == "hi"
            assert guard._limiter is client._options.guards[0]._limiter
            assert guard._session is copy._session


@pytest.mark.parametrize(("name", "value"), [("rate_limit", 5), ("rate_limit", {"per_minute": 5}), ("shared", 5)])
def test_what_is_no_limit_is_refused(name: str, value: Any, emulator: Emulator) -> None:
    """When the client is made."""
    with pytest.raises(TypeError, match=name):
        client_of(emulator, **{name: value})


def test_an_asynchronous_client_has_them_too(emulator: Emulator, tmp_path: Path) -> None:
    """Its tasks wait without holding the loop up, and its slots come back."""

    async def main() -> None:
        options: Any = {"github_url": emulator.github_url, "api_url": emulator.api_url, "rate_limit": ONE}
        async with AsyncClient(cookies=emulator.cookies, shared=tmp_path, **options) as client:
            answers = await asyncio.gather(*(client.ask(f"hi {number}") for number in range(5)))
            assert [answer.text for answer in answers] == [f"hi {number}" for number in range(5)]
            async for _ in client.stream("one two"):
                break
            assert (await client.ask("hi")).text == "hi"

    asyncio.run(main())
    assert messages(emulator) == 7


def test_a_pause_of_another_process_is_obeyed_in_mid_call(emulator: Emulator, tmp_path: Path) -> None:
    """Each request looks, if nobody did a moment ago; the question goes out when the pause is over."""
    with client_of(emulator, shared=tmp_path) as client:
        client.ask("hi")
        account = account_of(client)
        other = FolderStore(tmp_path)
        stream = client.stream(
            "hi", on_start=lambda _: (other.apply(account, "pause", RateRules(), "", 1.0), time.sleep(0.1))
        )
        begun = time.monotonic()
        assert stream.read().text == "hi"
        assert time.monotonic() - begun > 0.9
        assert other.apply(account, "look", RateRules()) == -1.0
        time.sleep(0.1)
        client.models()  # it is careful, as the others are


def test_a_refusal_is_told_to_others(emulator: Emulator, tmp_path: Path) -> None:
    """With what the service said."""
    with client_of(emulator, shared=tmp_path, retry=None) as client:
        emulator.fail("message", Fault.rate_limit(40))
        with pytest.raises(RateLimitError):
            client.ask("hi")
        left = FolderStore(tmp_path).apply(account_of(client), "look", RateRules())
        assert 35 < left <= 40
    with client_of(emulator, shared=tmp_path, retry=RetryPolicy(wait_for_limits=False)) as other:
        with pytest.raises(RateLimitError):
            other.ask("hi")


#: Asks once, in a folder that it shares, and says what became of it.
ASK_ONCE = """
import sys
from copilot_sync import Client, CopilotError
cookie, github, api, folder = sys.argv[1:]
with Client(cookies={"user_session": cookie}, github_url=github, api_url=api, shared=folder, retry=None) as client:
    try:
        client.ask("hi")
    except CopilotError as error:
        print(type(error).__name__, 0 < error.retry_after <= 500, error)
"""


def test_a_quota_that_is_used_up_is_told_to_other_processes(emulator: Emulator, tmp_path: Path) -> None:
    """They are told until when, and send nothing."""
    with client_of(emulator, shared=tmp_path, retry=None) as client:
        emulator.fail("message", Fault.out_of_quota(seconds=500))
        with pytest.raises(QuotaExceededError):
            client.ask("hi")
    count = len(emulator.requests)
    urls = emulator.cookies["user_session"], emulator.github_url, emulator.api_url
    arguments = [sys.executable, "-c", ASK_ONCE, *urls, str(tmp_path)]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=6 * PATIENCE)
    assert (
        told.stdout
        == "QuotaExceededError True the quota of the account is used up, as another process was told [stage token]\n"
    )
    assert len(emulator.requests) == count


def test_a_prompt_of_a_batch_counts_once(emulator: Emulator) -> None:
    """Though it begins its conversation by one call, and sends the message by another."""
    with client_of(emulator, rate_limit=RateLimit(per_minute=6, concurrency=3)) as client:
        with batch.run(["1", "2", "3", "4", "5"], client=client, workers=2) as results:
            assert len(list(results)) == 5
        assert messages(emulator) == 5
        client.ask("hi", timeout=Timeout(total=10))
