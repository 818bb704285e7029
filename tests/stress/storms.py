"""A service that refuses, and callers that go on asking: few requests reach it, whatever calls it, and spread out.

Each storm has a Copilot and credentials of its own. A first call is refused; then callers ask in endless loops that
catch all errors and call again at once: threads, several clients with the same credentials, the provider, asyncio,
batches. All kinds of refusals are tried, at each stage of a call, at the same time. Two more storms begin while
everything is well: 41 callers meet one refusal with a pause, or a service that refuses from then on.

Run it with ``python tests/stress/storms.py [--short]``. It prints the most requests of any storm in the second after
the first refusal (at most 4) and in the minute after it (at most 30; with ``--short`` in fewer seconds), and after a
pause how many requests arrive within 200 ms of its end and how far apart two of them are at least.
"""

import asyncio
import contextlib
import itertools
import math
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from measuring import Figures, leave, settings

from copilot_sync import Client, CopilotError, GithubCopilot, RetryPolicy
from copilot_sync.batch import run
from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, RecordedRequest

FULL = {"seconds": 61}
SHORT = {"seconds": 6}
CALLERS = 8
#: What may reach the service.
IN_A_SECOND, IN_A_MINUTE = 4, 30
#: Requests after which a storm is over, because it has shown enough.
ENOUGH = 300
#: Callers that wait for the end of one pause, seconds that it lasts, and seconds behind its end that are looked at.
WAITING, PAUSE, INSTANT = 41, 2, 0.2
#: Seconds in which what was on its way arrives, after a caller has heard of the first refusal.
ON_ITS_WAY = 0.25

REFUSALS = {
    "429, at once": Fault.status(429, retry_after=0),
    "429, in a second": Fault.status(429, retry_after=1),
    "429": Fault.status(429),
    "503, at once": Fault.status(503, retry_after=0),
    "403 of a rate limit": Fault.status(403, message="You have exceeded a secondary rate limit. Please wait."),
}
STAGES = ("token", "thread", "message")


class Storm:
    """One service that refuses, and who calls it.

    Args:
        name: What it is called.
        refusal: How it refuses.
        stage: What it refuses.
        times: How often.
    """

    def __init__(self, name: str, refusal: Fault, stage: str, times: float = math.inf) -> None:
        self.name = name
        self.over = threading.Event()
        self.refusing = threading.Event()
        self.refused: Optional[float] = None
        self.heard: Optional[float] = None
        self._refusal, self._stage, self._times = refusal, stage, times
        self.emulator = Emulator(options=EmulatorOptions(max_records=ENOUGH + 100))
        self.emulator.choose_fault = self._choose

    def _choose(self, stage: str, request: RecordedRequest) -> Optional[Fault]:
        if len(self.emulator.requests) > ENOUGH:
            self.over.set()
        if stage != self._stage or not self.refusing.is_set() or self._times <= 0:
            return None
        self._times -= 1
        self.refused = self.refused or request.time
        return self._refusal

    def hear(self, error: CopilotError, seconds: float) -> None:
        """Note when a caller has heard of the first refusal: on a busy machine that may take a while."""
        self.heard = self.heard or time.monotonic()

    def client(self, retry: Optional[RetryPolicy] = RetryPolicy()) -> Client:  # noqa: B008 - a frozen value
        """Make a client with the credentials of this storm."""
        return Client(retry=retry, **self.place)

    @property
    def place(self) -> Dict[str, Any]:
        """Where this storm is, and the credentials that it knows."""
        emulator = self.emulator
        return {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url}

    def again_and_again(self, call: Callable[[], Any]) -> None:
        """Call in a loop that learns nothing from its errors."""
        while not self.over.is_set():
            with contextlib.suppress(CopilotError):
                call()

    def arrivals(self, begin: float, end: float) -> List[float]:
        """When requests arrived so many seconds after the first refusal."""
        times = sorted(request.time - (self.refused or math.inf) for request in list(self.emulator.requests))
        return [each for each in times if begin < each <= end]


def threads(storm: Storm) -> None:
    """Threads on one client."""
    client = storm.client()
    _begin(storm, *[lambda: client.ask("Hello")] * CALLERS)


def clients(storm: Storm) -> None:
    """Clients with the same credentials, that make no second attempt themselves."""
    several = [storm.client(retry=None) for _ in range(4)]
    _begin(storm, *[lambda client=client: client.ask("Hello") for client in several])


def provider(storm: Storm) -> None:
    """The documented generator, in threads."""
    asked = [{"role": "user", "content": "Hello"}]
    _begin(storm, *[lambda: list(GithubCopilot.create_generator("gpt-4o", asked, **storm.place))] * CALLERS)


def tasks(storm: Storm) -> None:
    """Tasks of asyncio."""
    asked = [{"role": "user", "content": "Hello"}]

    async def task() -> None:
        while not storm.over.is_set():
            with contextlib.suppress(CopilotError):
                async for _ in GithubCopilot.create_async_generator("gpt-4o", asked, **storm.place):
                    pass
            await asyncio.sleep(0)

    async def all_tasks() -> None:
        await asyncio.gather(*[task() for _ in range(CALLERS)])

    threading.Thread(target=asyncio.run, args=(all_tasks(),), daemon=True).start()


def batches(storm: Storm) -> None:
    """One batch after another."""
    client = storm.client()
    _begin(storm, lambda: list(run([f"question {number}" for number in range(100)], client=client, workers=CALLERS)))


CALLS: Dict[str, Callable[[Storm], None]] = {
    "threads": threads,
    "clients": clients,
    "provider": provider,
    "asyncio": tasks,
    "batches": batches,
}


def _begin(storm: Storm, *calls: Callable[[], Any]) -> None:
    for call in calls:
        threading.Thread(target=storm.again_and_again, args=(call,), daemon=True).start()


def raised(stack: contextlib.ExitStack) -> List[Storm]:
    """Storms whose service refuses from the start, with everybody on their way in endless loops."""
    storms = []
    for (word, refusal), stage, (who, begin) in itertools.product(REFUSALS.items(), STAGES, CALLS.items()):
        storm = Storm(f"{who}, {word} for each {stage}", refusal, stage)
        stack.enter_context(storm.emulator)
        storm.refusing.set()
        with contextlib.suppress(CopilotError):
            storm.client(retry=None).ask("Hello")
        begin(storm)
        storms.append(storm)
    return storms


def raised_in_the_middle(stack: contextlib.ExitStack) -> Tuple[Storm, Storm]:
    """A storm that sets in while all is well, and one that is over with its first refusal, a pause for many callers."""
    sudden = Storm("threads, 429 while all is well", Fault.status(429, retry_after=0), "message")
    pause = Storm("a pause", Fault.status(429, retry_after=PAUSE), "message", times=1)
    for storm, callers in ((sudden, CALLERS), (pause, WAITING)):
        stack.enter_context(storm.emulator)
        client = storm.client(RetryPolicy(on_retry=storm.hear))
        client.ask("Hello")
        _begin(storm, *[lambda client=client: client.ask("Hello")] * callers)
        storm.emulator.wait_until(lambda storm=storm: len(storm.emulator.requests) > 100)  # type: ignore[misc]
        storm.refusing.set()
    return sudden, pause


def check(storms: List[Storm], sudden: Storm, pause: Storm) -> int:
    """Print the figures; give the exit status."""
    figures = Figures()
    seconds = {storm.name: len(storm.arrivals(0, 1)) for storm in storms}
    minutes = {storm.name: len(storm.arrivals(0, 60)) for storm in storms}
    until = ON_ITS_WAY + max(0.0, (sudden.heard or 0.0) - (sudden.refused or math.inf))
    on_its_way = min(len(sudden.arrivals(0, until)), CALLERS - 1)
    seconds[sudden.name] = len(sudden.arrivals(0, 1)) - on_its_way
    minutes[sudden.name] = len(sudden.arrivals(0, 60)) - on_its_way
    for name in sorted(seconds, key=lambda name: -minutes[name]):
        if seconds[name] > IN_A_SECOND or minutes[name] > IN_A_MINUTE:
            print(f"    | {name}: {seconds[name]} requests in a second, {minutes[name]} in all")
    figures.note("storms", len(seconds))
    figures.at_least(
        "storms that were refused", sum(each.refused is not None for each in [*storms, sudden]), len(seconds)
    )
    figures.at_most("most requests in the second after the first refusal", max(seconds.values()), IN_A_SECOND)
    figures.at_most("most requests in the minute after the first refusal", max(minutes.values()), IN_A_MINUTE)
    figures.at_most(
        "storms with more than that",
        sum(seconds[name] > IN_A_SECOND or minutes[name] > IN_A_MINUTE for name in seconds),
        0,
    )
    after = pause.arrivals(PAUSE - INSTANT, math.inf)
    gaps = [later - earlier for earlier, later in zip(after, after[1:])]
    figures.at_least("requests after a pause that many waited for", len(after), 1)
    # On a busy machine, what was sent before the refusal arrives late.
    figures.at_most("requests before its end", len(pause.arrivals(PAUSE / 2, PAUSE - 0.01)), 0)
    figures.at_most(
        "requests within 200 ms of its end", len(pause.arrivals(PAUSE - 0.01, PAUSE + INSTANT)), IN_A_SECOND
    )
    figures.note("milliseconds between two of them, at least", round(1000 * min(gaps, default=0), 1))
    return figures.status


def main() -> None:
    """Raise all storms, wait, and count."""
    given = settings(__doc__, FULL, SHORT)
    with contextlib.ExitStack() as stack:
        storms = raised(stack)
        others = raised_in_the_middle(stack)
        time.sleep(given.seconds)
        for storm in [*storms, *others]:
            storm.over.set()
        # Some callers may still be waiting: they are left behind.
        leave(check(storms, *others))


if __name__ == "__main__":
    main()
