"""A session of ``requests`` whose connections obey their call, and the pools in which they wait.

It keeps no cookies and knows no redirects. Tools for tests may stand between it and its connections: it says whether.

Threads: what an adapter knows of pools is atomic: replaced, never changed.
"""

import functools
import sys
import weakref
from typing import Any, Callable, Tuple

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.utils import select_proxy
from urllib3.connectionpool import HTTPConnectionPool

from copilot_sync.settings import origin_of
from copilot_sync.transport.connection import seams, watch
from copilot_sync.transport.ssl_contexts import ssl_contexts

#: Hosts, each with its proxy and its CAs, to which connections are kept.
_KNOWN_POOLS = 8


class _NoCookies(RequestsCookieJar):
    """A jar that keeps nothing, and takes no lock to find that out."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing of a reply."""


class PooledSession(requests.Session):
    """A session that keeps no cookies and knows no redirects, over connections that obey their call."""

    _is_the_parents = False

    def __init__(self) -> None:
        super().__init__()
        #: What it was made with. Under others it is of no use.
        self.seams = seams()
        self.cookies = _NoCookies()
        # Kept beside the adapters of requests as well: a child may inherit the lock of their dictionary locked.
        self._ours = _Adapter(pool_connections=_KNOWN_POOLS, pool_maxsize=1)
        for prefix in ("https://", "http://"):
            self.mount(prefix, self._ours)

    def pool_of(self, url: str, *, verify: Any, cert: Any, proxies: Any, stream: Any) -> Any:
        """Return the pool that a request with these settings uses; ``None`` if it is not ours."""
        return self._ours.pool_of(url, verify, cert, proxies) if self.sends_itself(url) else None

    def sends_itself(self, url: str) -> bool:
        """Whether no tool for tests stands between this session and its connections. One that records reads a reply."""
        are_their_own = _are_their_own(requests.Session.send, HTTPAdapter.send, HTTPConnectionPool.urlopen)
        return are_their_own and self.get_adapter(url) is self._ours

    def has_idle(self, url: str, *, verify: Any, cert: Any, proxies: Any, stream: Any) -> bool:
        """Whether a connection for such a request waits in a pool of ours, and nothing stands before it."""
        return self.sends_itself(url) and self._ours.has_idle(url, verify, cert, proxies)

    def leave_to_parent(self) -> None:
        """In a forked child: take the descriptors off the parent's connections, and close nothing."""
        self._is_the_parents = True
        self._ours.leave_to_parent()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # Not all releases of urllib3 close the idle connections of a pool that nobody holds any more. An interpreter
        # that ends has closed them, and may have cleared the modules that closing needs.
        is_whole = "adapters" in self.__dict__  # an interruption may end __init__ anywhere
        if is_whole and not self._is_the_parents and not is_finalizing():
            self.close()

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Any:
        """Know none: even if they are not followed, requests reads a redirect's whole body to prepare the next one."""
        return iter(())


@functools.lru_cache(maxsize=2)
def _are_their_own(*steps: Any) -> bool:
    """Whether the steps of a request are those of ``requests`` and ``urllib3``, and not those of a tool for tests."""
    return all(step.__module__.partition(".")[0] in ("requests", "urllib3") for step in steps)


def _place_of_pool(url: str, verify: Any, cert: Any, proxies: Any) -> Tuple[Any, ...]:
    """What tells pools apart."""
    return origin_of(url), verify, cert, select_proxy(url, proxies) if proxies else None


class _Adapter(HTTPAdapter):
    def __init__(self, **kwargs: Any) -> None:
        # Replaced and never changed, because readers of a dictionary that other threads fill need its lock.
        self._pools: Tuple[Tuple[Any, Callable[[], Any]], ...] = ()
        super().__init__(**kwargs)

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        # Finding a pool takes requests and urllib3 a tenth of the time of a whole call, and a lock of theirs.
        place = _place_of_pool(request.url, verify, cert, proxies)
        pool = self._known_pool(place)
        if pool is not None:
            return pool
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        others = [each for each in self._pools if each[0] != place]
        self._pools = ((place, weakref.ref(pool)), *others[: _KNOWN_POOLS - 1])
        return pool

    def _known_pool(self, place: Tuple[Any, ...]) -> Any:
        for known, find in self._pools:
            if known == place:
                pool = find()
                if pool is not None and pool.pool is not None:  # else closed, to make room for others
                    return pool
        return None

    def has_idle(self, url: str, verify: Any, cert: Any, proxies: Any) -> bool:
        """Whether a connection waits in the pool that such a request uses."""
        return getattr(self._known_pool(_place_of_pool(url, verify, cert, proxies)), "has_idle", False)

    def leave_to_parent(self) -> None:
        """In a forked child: take the descriptors off the parent's connections, and close nothing."""
        pools = [find() for _, find in self._pools]
        for pool in [pool for pool in pools if pool is not None]:
            pool.leave_to_parent()

    def request_url(self, request: Any, proxies: Any) -> str:
        # Without a proxy, requests reads the URL three times to arrive at its path.
        if proxies:
            return str(super().request_url(request, proxies))
        return str(request.url[len(origin_of(request.url)) :].partition("#")[0])

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        # As requests does, but for the cookies: nobody keeps them, and looking for them takes a jar with a lock. Nor is
        # the head copied, which urllib3 keeps in a mapping of the same kind.
        response = requests.Response()
        response.status_code = resp.status
        response.headers = resp.headers
        response.raw, response.reason = resp, resp.reason
        response.url, response.request = req.url, req
        response.connection = self  # type: ignore[attr-defined,unused-ignore]
        return response

    def pool_of(self, url: str, verify: Any, cert: Any, proxies: Any) -> Any:
        request = requests.Request("GET", url).prepare()
        pool = self.get_connection_with_tls_context(request, verify, proxies, cert)
        self.cert_verify(pool, url, verify, cert)
        return pool if hasattr(pool, "connect_ahead") else None

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call,unused-ignore]
        place = conn.ca_certs or conn.ca_cert_dir
        # A proxy that speaks TLS itself is checked with what the pool names.
        through_tls = conn.proxy is not None and conn.proxy.scheme == "https"
        if place is not None and not through_tls:
            conn.conn_kw["ssl_context"] = ssl_contexts.context(place)
            conn.ca_certs = conn.ca_cert_dir = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        # Each time, because another thread may have made it a moment ago.
        manager = super().proxy_manager_for(proxy, **kwargs)
        watch(manager)
        return manager

    def close(self) -> None:
        # urllib3 2 closes the connections of a pool when nobody holds it any more, but a reply in a traceback does.
        # Not by requests, which stumbles if another thread begins to use a proxy meanwhile.
        for manager in (self.poolmanager, *list(self.proxy_manager.values())):
            for key in manager.pools.keys():  # noqa: SIM118 - urllib3 forbids to iterate it
                manager.pools[key].close()
            manager.clear()
