"""What the questions share.

``Scale`` says how much is asked of the clients: the full measure, a short one, or next to nothing, for the test that
sees that everything here still works. ``Bench`` has the server and the clients.
"""

import http.client
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from benchmarks.measure import Process, Pythons, Rounds, Workers, client_of, interleaved
from benchmarks.peers import BEFORE, READS, Target
from benchmarks.plans import Plan


@dataclass(frozen=True)
class Scale:
    """How much is measured. ``round_trip`` is in milliseconds, for the measurements that count round trips."""

    rounds: int = 9
    events: int = 20_000
    paced: int = 1_000
    calls: int = 100
    threads: int = 16
    prompts: int = 800
    trips: int = 5
    round_trip: int = 50
    delays: int = 200
    streams: int = 200
    crowd: int = 1_000
    pages: int = 100
    seconds: float = 5.0
    stream_rounds: int = 3
    imports: int = 15
    megabytes: int = 64
    large_rounds: int = 3
    volume: int = 1_000_000


FULL = Scale()
SHORT = Scale(
    rounds=3,
    events=3_000,
    paced=100,
    calls=20,
    prompts=160,
    trips=2,
    delays=40,
    streams=50,
    crowd=200,
    pages=25,
    seconds=1.0,
    stream_rounds=1,
    imports=2,
    megabytes=16,
    large_rounds=1,
    volume=30_000,
)
TINY = Scale(
    rounds=1,
    events=40,
    paced=4,
    calls=2,
    threads=2,
    prompts=4,
    trips=1,
    round_trip=5,
    delays=5,
    streams=3,
    crowd=3,
    pages=3,
    seconds=0.1,
    stream_rounds=1,
    imports=1,
    megabytes=1,
    large_rounds=1,
    volume=100,
)


class Bench:
    """What the questions share: the server, the clients, and how much is asked of them.

    Args:
        names: The clients.
        scale: How much is measured.
        certificate: The files of a server's certificate with its key, and of its CA; ``None`` for no TLS.
        pythons: What the clients run on.
        against: The folder of another checkout of ours, to compare this one with.
    """

    def __init__(
        self,
        names: Sequence[str],
        scale: Scale,
        certificate: Optional[Tuple[str, str]],
        pythons: Pythons,
        against: Optional[str] = None,
    ) -> None:
        self.scale = scale
        self.workers = Workers(names, pythons, against)
        self._authority = certificate[1] if certificate else None
        self._server = Process("server", *(certificate[:1] if certificate else ()))
        self._ports: List[int] = self._server.heard()

    @property
    def names(self) -> List[str]:
        """The clients."""
        return self.without(READS)

    @property
    def waiting(self) -> List[str]:
        """The clients, and what reading by itself costs if each event is waited for."""
        return self.workers.names

    def among(self, *clients: str) -> List[str]:
        """Those of some clients that are compared, and what ours among them were before."""
        wanted = {*clients, *(client + BEFORE for client in clients)}
        return [name for name in self.workers.names if client_of(name) in wanted]

    def without(self, *clients: str) -> List[str]:
        """All but some clients."""
        return [name for name in self.workers.names if client_of(name) not in clients]

    @property
    def port(self) -> int:
        """The port that speaks TLS, if one does."""
        return self._ports[-1]

    @property
    def speaks_tls(self) -> bool:
        """Whether the server has a port that speaks TLS."""
        return self._authority is not None

    def target(self, tls: bool = False) -> Target:
        """The server itself, with a key: no tokens."""
        url = f"https://127.0.0.1:{self.port}" if tls else f"http://127.0.0.1:{self._ports[0]}"
        return Target(github=url, api=url, authority=self._authority if tls else None)

    def distant(self, ports: Sequence[int]) -> Target:
        """The server behind the proxies of these ports, without a key."""
        scheme = "https" if self._authority else "http"
        github, api = (f"{scheme}://localhost:{port}" for port in ports)
        return Target(github=github, api=api, api_key=None, authority=self._authority)

    def counts(self) -> Dict[str, int]:
        """How many connections and tokens were asked of the server since the last time."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[0])
        connection.request("GET", "/counts")
        counts: Dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return counts

    def run(
        self,
        job: str,
        plan: Plan,
        rounds: int,
        names: Optional[Sequence[str]] = None,
        *,
        tls: bool = False,
        **arguments: Any,
    ) -> Rounds:
        """Have the clients take turns at a job."""
        target = self.target(tls)

        def measure(name: str) -> Dict[str, Any]:
            return self.workers.measure(name, job, target, plan, **arguments)

        return interleaved(names or self.names, rounds, measure)

    def close(self) -> None:
        """End all processes."""
        self.workers.close()
        self._server.close()
