"""Budgets: what the calls of an account, and of each user, may use in a day; who comes later is refused unsent."""

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import re
import signal
import threading
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from driven import DRIVERS
from gateway import KEY, call, question
from support import PATIENCE, Worker, collect_garbage, nothing_left_open, wait_until

from copilot_sync import (
    AsyncClient,
    Budget,
    BudgetExceededError,
    Client,
    CopilotError,
    MissingCredentialsError,
    RateLimit,
    RateLimitError,
    RetryPolicy,
    batch,
)
from copilot_sync.contrib.openai_gateway import Gateway
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.shared_state import MemoryStore, StoreError


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """One with an account that no other test has heard of."""
    resource_tracker.ensure_running()  # it stays until this process ends
    with nothing_left_open(), Emulator() as served:
        yield served


def client_of(emulator: Emulator, budget: Any, **options: Any) -> Client:
    places: Dict[str, Any] = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    return Client(cookies=emulator.cookies, **places, budget=budget, **options)


def messages(emulator: Emulator) -> int:
    return sum(request.stage == "message" for request in emulator.requests)


def spent(client: Client, *purses: str) -> List[int]:
    limiter = client._options.guards[0]._find(client._session.find_account())
    return [limiter.spent(purse) for purse in purses]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "folder"])
def test_a_question_beyond_the_budget_is_refused_unsent(
    driver: str, is_shared: bool, emulator: Emulator, tmp_path: Path
) -> None:
    """Not even for a token. The error says which budget it is, how much was used, and when there is more."""
    budget = Budget(per_day={"requests": 2})
    with client_of(emulator, budget, shared=tmp_path if is_shared else None) as client:
        for _ in range(2):
            DRIVERS[driver](client.stream("hi"), [])
        asked = len(emulator.requests)
        with pytest.raises(BudgetExceededError) as caught:
            DRIVERS[driver](client.stream("hi"), [])
        assert len(emulator.requests) == asked
    error = caught.value
    assert isinstance(error, RateLimitError)
    assert error.stage == "limit"
    assert error.retry_after is not None and 23 * 3600 - 60 < error.retry_after <= 24 * 3600
    words = r"the budget of the account is used up \(2 of 2 requests in 24 hours\)"
    words += r"; some of it is free again in (23 h \d+ min|1 d 0 h)"
    assert re.fullmatch(words + r" \[stage limit\]", str(error))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "folder"])
def test_the_tokens_of_an_answer_count_when_it_has_ended(
    driver: str, is_shared: bool, emulator: Emulator, tmp_path: Path
) -> None:
    """As the service counted them. The one that goes beyond the limit is answered, the next one is not."""
    emulator.reply = Reply(usage={"inputTokens": 5, "outputTokens": 60})
    budget = Budget(per_day={"output_tokens": 100})
    with client_of(emulator, budget, shared=tmp_path if is_shared else None) as client:
        for number in (60, 120):
            DRIVERS[driver](client.stream("hi"), [])
            wait_until(lambda number=number: spent(client, "day-output_tokens") == [number])  # type: ignore[misc]
        with pytest.raises(BudgetExceededError, match="120 of 100 output tokens in 24 hours"):
            DRIVERS[driver](client.stream("hi"), [])


def test_each_user_has_a_budget(emulator: Emulator) -> None:
    """Calls without a user count for the account alone, and so do all."""
    budget = Budget(per_day={"requests": 4}, per_user={"requests": 1})
    with client_of(emulator, budget) as client:
        client.ask("hi", user="ann")
        with pytest.raises(BudgetExceededError, match=r"of the user 'ann' is used up \(1 of 1 requests"):
            client.ask("hi", user="ann")
        client.ask("hi", user="bob")
        client.ask("hi")
        with pytest.raises(BudgetExceededError, match="of the user 'bob'"):
            client.chat().ask("hi", user="bob")
        client.ask("hi")
        with pytest.raises(BudgetExceededError, match=r"of the account is used up \(4 of 4 requests"):
            client.ask("hi", user="eve")


def test_who_is_refused_by_one_budget_pays_from_no_other(emulator: Emulator) -> None:
    """What was taken before is given back."""
    budget = Budget(per_day={"requests": 2, "output_tokens": 50}, per_user={"requests": 1, "output_tokens": 50})
    with client_of(emulator, budget) as client:
        client.ask("hi", user="ann")
        for _ in range(3):
            with pytest.raises(BudgetExceededError, match="ann"):
                client.ask("hi", user="ann")
        assert spent(client, "day-requests") == [1]
        client.ask("hi", user="bob")


def test_a_user_is_named_in_no_file(emulator: Emulator, tmp_path: Path) -> None:
    """Neither by its name nor by what is in it. Whatever a name is made of, it has one."""
    budget = Budget(per_user={"requests": 2, "output_tokens": 1000})
    with client_of(emulator, budget, shared=tmp_path) as client:
        for user in ("annabel", "../\udce9"):
            client.ask("hi", user=user)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    names = [
        name for name in kept if re.fullmatch(r"limits-\w+-user-[0-9a-f]{32}-(requests|output_tokens)\.json", name)
    ]
    assert len(names) == 4
    assert "annabel" not in repr(kept)


#: What the service says of an answer of nine characters, and how many tokens count.
USAGES = [
    pytest.param(Reply(usage={}), 3, id="nothing"),
    pytest.param(Reply(usage={"inputTokens": 7}), 3, id="no output"),
    pytest.param(Reply(usage={"outputTokens": -5}), 0, id="below zero"),
    pytest.param(Reply(usage={"outputTokens": 10**400}), 10**9, id="no number of tokens"),
    pytest.param(Reply(["x"], usage={}), 1, id="one character"),
    pytest.param(Reply([], usage={}), 0, id="no text"),
]


@pytest.mark.parametrize(("reply", "tokens"), USAGES)
def test_what_the_service_does_not_count_is_estimated(reply: Reply, tokens: int, emulator: Emulator) -> None:
    """By the characters that came."""
    emulator.reply = reply
    with client_of(emulator, Budget(per_day={"output_tokens": 10}), retry=None) as client:
        with contextlib.suppress(CopilotError):
            client.ask("nine char")
        assert spent(client, "day-output_tokens") == [tokens]


def test_an_answer_that_is_cut_off_costs_what_came_of_it(emulator: Emulator) -> None:
    """The text that came, and the request."""
    emulator.reply = Reply(["1234567", "8", "9"], pace=0.2)
    with client_of(emulator, Budget(per_day={"output_tokens": 10, "requests": 5})) as client:
        with client.stream("hi") as stream:
            next(stream)
        assert spent(client, "day-output_tokens", "day-requests") == [2, 1]


def test_a_question_that_was_not_sent_costs_nothing(emulator: Emulator) -> None:
    """Whatever came before it; one that was refused, or sent twice, costs one request."""
    with client_of(emulator, Budget(per_day={"requests": 9, "output_tokens": 9}), retry=None) as client:
        for stage in ("token", "thread"):
            emulator.fail(stage, Fault.status(500))
            with pytest.raises(CopilotError):
                client.ask("hi")
        client.stream("hi").start()
        collect_garbage()
        stream = client.stream("hi")
        stream.start()
        stream.close()
        assert spent(client, "day-requests", "day-output_tokens") == [0, 0]
        emulator.fail("message", Fault.status(400))
        with pytest.raises(CopilotError):
            client.ask("hi")
        assert spent(client, "day-requests", "day-output_tokens") == [1, 0]
        emulator.fail("message", Fault.status(503, retry_after=0.01))
        client.ask("hi", retry=RetryPolicy())
        assert spent(client, "day-requests") == [2]


def test_one_that_the_limits_of_the_account_refuse_costs_nothing(emulator: Emulator) -> None:
    """The two may be had together."""
    options: Any = {"rate_limit": RateLimit(per_minute=1), "retry": RetryPolicy(wait_for_limits=False)}
    with client_of(emulator, Budget(per_day={"requests": 2}), **options) as client:
        client.ask("hi")
        with pytest.raises(RateLimitError, match="the limits that were set"):
            client.ask("hi")
        assert spent(client, "day-requests") == [1]


def test_a_cached_answer_costs_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """It is there also if the budget is used up."""
    with client_of(emulator, Budget(per_day={"requests": 1}), answer_cache=tmp_path) as client:
        client.ask("hi")
        assert client.ask("hi").cached
        with pytest.raises(BudgetExceededError):
            client.ask("something else")


def test_without_credentials_there_is_no_account() -> None:
    """Their error comes first."""
    with Client(api_url="http://127.0.0.1:9", cookies={}, budget=Budget(per_day={"requests": 1})) as client:
        with pytest.raises(MissingCredentialsError):
            client.ask("hi")


def test_a_client_may_go_to_another_process(emulator: Emulator, tmp_path: Path) -> None:
    """With its budget."""
    with client_of(emulator, Budget(per_day={"requests": 2}), shared=tmp_path) as client:
        client.ask("hi")
        with pickle.loads(pickle.dumps(client)) as copy:
            copy.ask("hi")
            with pytest.raises(BudgetExceededError):
                copy.ask("hi")


def _asks(places: Any, folder: str, results: Any) -> None:  # pragma: no cover - in other processes
    with Client(**places, budget=Budget(per_day={"requests": 12}), shared=folder) as client:
        with contextlib.suppress(BudgetExceededError):
            while True:
                client.ask("hi")
    results.put(os.getpid())


@pytest.mark.parametrize("is_killed", [False, True], ids=["all live", "one is killed"])
def test_processes_share_a_budget(is_killed: bool, emulator: Emulator, tmp_path: Path) -> None:
    """Together they ask no more. What one that was killed has spent stays spent."""
    emulator.reply = Reply(["a", "b"], pace=0.05)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    places = {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url}
    processes = [context.Process(target=_asks, args=(places, str(tmp_path), results)) for _ in range(2)]
    for process in processes:
        process.start()
    if is_killed:
        wait_until(lambda: messages(emulator) > 4)
        os.kill(processes[0].pid or 0, signal.SIGKILL)
    for process in processes:
        process.join(2 * PATIENCE)
        process.close()
    results.close()
    results.join_thread()
    # One that was killed may have paid for a message that it did not send any more.
    assert messages(emulator) in ((11, 12) if is_killed else (12,))


def test_an_asynchronous_client_has_it_too(emulator: Emulator, tmp_path: Path) -> None:
    """Its tasks pay at the end without holding the loop up."""
    emulator.reply = Reply(usage={"outputTokens": 10})

    async def main() -> None:
        places: Any = {"github_url": emulator.github_url, "api_url": emulator.api_url, "shared": tmp_path}
        budget = Budget(per_day={"requests": 5, "output_tokens": 1000})
        async with AsyncClient(cookies=emulator.cookies, **places, budget=budget) as client:
            got = await asyncio.gather(*(client.ask("hi", user="ann") for _ in range(8)), return_exceptions=True)
        assert sum(isinstance(each, BudgetExceededError) for each in got) == 3

    asyncio.run(main())
    assert messages(emulator) == 5
    with client_of(emulator, Budget(per_day={"requests": 5}), shared=tmp_path) as client:
        wait_until(lambda: spent(client, "day-requests", "day-output_tokens") == [5, 50])


def test_an_event_loop_waits_for_no_store(emulator: Emulator) -> None:
    """What an answer cost is told to it by a thread."""

    class Slow:
        """A store that is asked by threads alone."""

        is_instant = False

        def __init__(self) -> None:
            self.memory = MemoryStore()
            self.threads: List[str] = []

        def apply(self, *arguments: Any) -> float:
            self.threads.append(threading.current_thread().name)
            return self.memory.apply(*arguments)

    store = Slow()

    async def main() -> None:
        places: Any = {"github_url": emulator.github_url, "api_url": emulator.api_url, "shared": store}
        async with AsyncClient(cookies=emulator.cookies, **places, budget=Budget({"output_tokens": 9})) as client:
            await client.ask("hi")

    asyncio.run(main())
    assert store.threads
    assert threading.current_thread().name not in store.threads


class Away:
    """A store that may be away."""

    is_instant = False

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.is_away = True

    def apply(self, *arguments: Any) -> float:
        if self.is_away:
            raise StoreError("ConnectionError")
        return self.memory.apply(*arguments)


def test_if_it_can_not_be_shared_a_quarter_counts(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the memory of this process, which says so once, and in the error."""
    monkeypatch.setattr("copilot_sync.pacing.account_limiter._AWAY", PATIENCE * 100)
    store = Away()
    with client_of(emulator, Budget(per_day={"requests": 8}, per_user={"requests": 40}), shared=store) as client:
        for user in ("ann", "bob"):
            client.ask("hi", user=user)
        with pytest.raises(BudgetExceededError, match=r"\(2 of 8 requests in 24 hours, a quarter of which counts as"):
            client.ask("hi")
        limiter = client._options.guards[0]._limiter
        told = [record for record in caplog.records if "goes on alone" in record.message]
        assert len(told) == 1
        store.is_away, limiter._away_until = False, 0.0
        client.ask("hi")
        assert spent(client, "day-requests") == [1]


def test_a_file_that_can_not_be_read_counts_as_used_up(emulator: Emulator, tmp_path: Path) -> None:
    """For a minute. What is spent meanwhile is counted."""
    with client_of(emulator, Budget(per_day={"requests": 8}), shared=tmp_path) as client:
        account = client._session.find_account().account
        (tmp_path / f"limits-{account}-day-requests.json").write_text("{")
        with pytest.raises(BudgetExceededError, match=r"\(0 of 8 requests in 24 hours\)") as caught:
            client.ask("hi")
        assert caught.value.retry_after is not None and caught.value.retry_after < 62


def test_a_batch_ends_if_its_budget_is_used_up_for_hours(emulator: Emulator, tmp_path: Path) -> None:
    """With the budget's error, as with a quota. A question counts once, though its conversation is begun by itself."""
    output = tmp_path / "answers.jsonl"
    prompts = ["one", "two", "three", "four"]
    with client_of(emulator, Budget(per_day={"requests": 3})) as client:
        with pytest.raises(BudgetExceededError, match="of the account is used up"):
            list(batch.run(prompts, client=client, workers=1, output=output))
        assert messages(emulator) == 3
    with client_of(emulator, Budget(per_day={"requests": 9})) as client:
        list(batch.run(prompts, client=client, workers=1, output=output))
    assert messages(emulator) == 4


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_the_gateway_tells_it_as_too_many_requests(is_streamed: bool, emulator: Emulator) -> None:
    """And clients not to come again by themselves."""
    with client_of(emulator, Budget(per_day={"requests": 1})) as client:
        gateway = Gateway(client, key=KEY)
        assert call(gateway, "/v1/chat/completions", question()).status == 200
        response = call(gateway, "/v1/chat/completions", question(stream=is_streamed))
    assert (response.status, response.error["code"]) == (429, "rate_limit_exceeded")
    assert response.headers["x-should-retry"] == "false"
    assert "the budget of the account is used up" in response.error["message"]


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        ({"per_day": 5}, TypeError, "per_day must be a mapping, not int"),
        ({"per_user": ["requests"]}, TypeError, "per_user must be a mapping, not list"),
        ({"per_day": {"tokens": 5}}, ValueError, "per_day has no 'tokens'; there are requests and output_tokens"),
        ({"per_user": {5: 5}}, ValueError, "per_user has no 5; there are"),
        ({"per_day": {"requests": 0}}, ValueError, "requests of per_day must be at least 1, not 0"),
        ({"per_day": {"requests": True}}, TypeError, "requests of per_day must be a whole number, not bool"),
        (
            {"per_user": {"output_tokens": 1.5}},
            TypeError,
            "output_tokens of per_user must be a whole number, not float",
        ),
    ],
)
def test_what_is_no_budget_is_refused(limits: Any, error: Any, words: str) -> None:
    """When it is made."""
    with pytest.raises(error, match=words):
        Budget(**limits)


def test_nobody_changes_a_budget() -> None:
    """Nor the numbers that it was made of."""
    given = {"requests": 5}
    budget = Budget(given)
    given["requests"] = 500
    assert budget == Budget(per_day={"requests": 5}) == pickle.loads(pickle.dumps(budget))
    with pytest.raises(AttributeError):
        budget.per_day = None  # type: ignore[misc]


def test_a_client_takes_nothing_else_for_one(emulator: Emulator) -> None:
    """It says so when it is made."""
    with pytest.raises(TypeError, match="budget must be a Budget, not dict"):
        client_of(emulator, {"requests": 5})


def test_threads_do_not_pay_with_the_same_request(emulator: Emulator) -> None:
    """Of many at once, as many are answered as there are requests."""
    with client_of(emulator, Budget(per_day={"requests": 5}, per_user={"requests": 7})) as client:
        answers: List[str] = []

        def ask() -> None:
            with contextlib.suppress(BudgetExceededError):
                answers.append(client.ask("hi", user="ann").text)

        for worker in [Worker(ask) for _ in range(12)]:
            worker.result()
        assert (len(answers), spent(client, "day-requests")) == (5, [5])
