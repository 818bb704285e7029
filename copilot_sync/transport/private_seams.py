"""What this package uses of other libraries though nobody has promised it: one list, checked by a test.

``requests``, ``urllib3`` and ``http.client`` offer no hook for what a deadline of the whole call, a stop from another
thread and exactly-once sending need. Each entry says which name is used, in which module and for what, and in which
releases it was seen to be there. When a new release moves one, the test names it. Nothing imports this at run time.

A path with ``()`` behind a class means an attribute of an instance.
"""

from typing import NamedTuple, Optional, Tuple


class Seam(NamedTuple):
    """A private or undocumented name that is relied on.

    Attributes:
        path: Where it is, dotted.
        module: The module of ``copilot_sync.transport`` that relies on it.
        purpose: What for.
        seen_in: The oldest and the newest release in which it was found.
        parameters: The names of its parameters after ``self``, if it is called or replaced.
    """

    path: str
    module: str
    purpose: str
    seen_in: str
    parameters: Optional[Tuple[str, ...]] = None


_PYTHON = "CPython 3.8 to 3.15"
_URLLIB3 = "urllib3 1.26.0 to 2.8.0"
_REQUESTS = "requests 2.32.4 to 2.34.2"
_CLIENT = "http.client.HTTPResponse"
_POOL = "urllib3.connectionpool.HTTPConnectionPool"
_CONNECTION = "urllib3.connection.HTTPConnection"
_ADAPTER = "requests.adapters.HTTPAdapter"

SEAMS: Tuple[Seam, ...] = (
    Seam(f"{_CLIENT}._read_status", "reply", "reads interim replies past", _PYTHON, ()),
    Seam(f"{_CLIENT}.begin", "reply", "reads the head, and can leave it to a later step", _PYTHON, ()),
    Seam(f"{_CLIENT}._check_close", "reply", "tells whether the server ends a connection", _PYTHON, ()),
    Seam(f"{_CLIENT}()._method", "reply", "tells whether a body can follow", _PYTHON),
    Seam("http.client.parse_headers", "reply", "reads fields", _PYTHON, ("fp",)),
    Seam(f"{_CLIENT}().chunked", "reply", "tells the framing of a body", _PYTHON),
    Seam(f"{_CLIENT}().length", "reply", "tells the end of a body", _PYTHON),
    Seam(f"{_CLIENT}().will_close", "reply", "tells whether a connection can go on", _PYTHON),
    Seam(f"{_CLIENT}().fp", "reply", "is what makefile() of the socket returned", _PYTHON),
    Seam("http.client.HTTPConnection.response_class", "connection", "makes replies that obey their call", _PYTHON),
    Seam("http.client.HTTPConnection._tunnel", "boundary", "words a proxy's refusal", _PYTHON, ()),
    Seam("http.client.HTTPConnection._output", "connection", "takes lines of a head", _PYTHON, ("s",)),
    Seam("http.client.HTTPConnection().sock", "connection", "is the socket, None before connecting", _PYTHON),
    Seam(f"{_POOL}._get_conn", "connection", "takes a connection without a lock", _URLLIB3, ("timeout",)),
    Seam(f"{_POOL}._put_conn", "connection", "keeps settled connections alone", _URLLIB3, ("conn",)),
    Seam(f"{_POOL}._new_conn", "connection", "makes a connection", _URLLIB3, ()),
    Seam(f"{_POOL}().pool", "connection", "is None in a pool that was closed", _URLLIB3),
    Seam(f"{_POOL}().num_connections", "connection", "tells whether there was a connection before", _URLLIB3),
    Seam(f"{_POOL}().proxy", "connection", "tells whether a proxy is in between", _URLLIB3),
    Seam(f"{_POOL}().conn_kw", "pooled_session", "carries the TLS context to the connections", _URLLIB3),
    Seam(f"{_POOL}.ConnectionCls", "connection", "is the class of the connections", _URLLIB3),
    Seam(f"{_CONNECTION}._new_conn", "connection", "opens the socket where the call can see it", _URLLIB3, ()),
    Seam(f"{_CONNECTION}()._dns_host", "connection", "is the host to look up", _URLLIB3),
    Seam(f"{_CONNECTION}().socket_options", "connection", "are set on each socket", _URLLIB3),
    Seam("urllib3.connection.CertificateError", "boundary", "is raised for a name that does not match", _URLLIB3),
    Seam("urllib3.PoolManager().pool_classes_by_scheme", "connection", "makes pools of ours", _URLLIB3),
    Seam("urllib3.HTTPResponse()._fp", "body", "is the reply of http.client below", _URLLIB3),
    Seam("urllib3.HTTPResponse()._original_response", "connection", "the same, while it is being made", _URLLIB3),
    Seam(
        "urllib3.util.connection.is_connection_dropped",
        "connection",
        "tells whether an idle connection was closed by the other side",
        _URLLIB3,
        ("conn",),
    ),
    Seam(
        f"{_ADAPTER}.get_connection_with_tls_context",
        "pooled_session",
        "finds a pool once",
        _REQUESTS,
        ("request", "verify", "proxies", "cert"),
    ),
    Seam(
        f"{_ADAPTER}.cert_verify",
        "pooled_session",
        "shares what was read of CAs",
        _REQUESTS,
        ("conn", "url", "verify", "cert"),
    ),
    Seam(f"{_ADAPTER}.build_response", "pooled_session", "looks for no cookies", _REQUESTS, ("req", "resp")),
    Seam(f"{_ADAPTER}.request_url", "pooled_session", "reads the URL once", _REQUESTS, ("request", "proxies")),
    Seam(f"{_ADAPTER}().poolmanager", "pooled_session", "holds the pools", _REQUESTS),
    Seam(f"{_ADAPTER}().proxy_manager", "pooled_session", "holds the pools behind proxies", _REQUESTS),
    Seam(
        "requests.Session.resolve_redirects",
        "pooled_session",
        "follows no redirect",
        _REQUESTS,
        ("resp", "req", "stream", "timeout", "verify", "cert", "proxies", "yield_requests", "adapter_kwargs"),
    ),
    Seam("requests.Response()._content", "body", "tells whether a tool has read a reply", _REQUESTS),
    Seam("requests.PreparedRequest.prepare_content_length", "session", "prepares a request", _REQUESTS, ("body",)),
    Seam("requests.utils.select_proxy", "pooled_session", "finds the proxy of a URL", _REQUESTS, ("url", "proxies")),
    Seam("requests.utils.DEFAULT_CA_BUNDLE_PATH", "boundary", "is the file of CAs if nobody names one", _REQUESTS),
)
