"""A TLS connection that breaks harms no other connection of its thread: not ours, and none of whoever calls us.

With Python 3.14 and a newer OpenSSL, which continuous integration has, it would.
"""

import socket
import ssl
from pathlib import Path
from typing import Iterator

import pytest
from support import PATIENCE, Peer, Script, Server, authority_file, server_context, stages

from copilot_sync import Client, NetworkError
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.transport.openssl_errors import receive


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return authority_file(tmp_path)


def connected(server: Server, ca: str) -> ssl.SSLSocket:
    """Return a connection that is not ours."""
    context = ssl.create_default_context(cafile=ca)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", server.port)), server_hostname="127.0.0.1")


def echo(peer: Peer) -> None:
    """Say what is heard."""
    for data in iter(peer.arrived, b""):
        peer.send(data)


@pytest.fixture
def used(ca: str) -> Iterator[ssl.SSLSocket]:
    """A connection that is not ours. What belongs to its handshake has come; only then it meets errors of others."""
    with Server(echo, tls=True) as server, connected(server, ca) as sock:
        sock.settimeout(PATIENCE)
        sock.send(b"x")
        assert sock.recv(1) == b"x"
        yield sock


def client_of(emulator: Emulator, ca: str) -> Client:
    return Client(emulator.api_key, api_url=emulator.api_url, verify=ca)


def break_one(ca: str) -> None:
    """Let a connection that is not ours break."""
    with Server(lambda peer: None, tls=True) as server:
        sock = connected(server, ca)
    with sock, pytest.raises((ConnectionError, ssl.SSLError)):  # the server has closed its end
        while True:
            sock.send(b"x")


def test_an_error_of_another_connection_is_not_met_by_a_read(used: ssl.SSLSocket, ca: str) -> None:
    """There is nothing to read, and nothing is wrong."""
    used.setblocking(False)
    break_one(ca)
    with pytest.raises(ssl.SSLWantReadError):
        receive(used, 1)


def test_what_comes_is_read_after_an_error_of_another_connection(used: ssl.SSLSocket, ca: str) -> None:
    """Although the first look for it fails."""
    break_one(ca)
    used.send(b"y")
    assert receive(used, 1) == b"y"


def test_the_error_of_a_connection_is_its_own() -> None:
    """A second look, which finds an end, does not hide it."""

    def script(peer: Peer) -> None:
        peer.arrived()
        peer.reset()

    with Server(script) as server, socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.send(b"x")
        with pytest.raises(ConnectionResetError):
            receive(sock, 1)


def test_a_connection_that_was_closed_says_so() -> None:
    """At both looks."""
    with socket.socket() as sock:
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            receive(sock, 1)


def test_a_kept_connection_goes_on_after_another_one_broke(ca: str) -> None:
    """With one request, over the same connection."""
    with Emulator(ssl_context=server_context()) as emulator, client_of(emulator, ca) as client:
        client.models()
        requests, connections = len(stages(emulator)), emulator.open_connections
        break_one(ca)
        emulator.fail("models", Fault.delay(0.2))
        client.models()
        assert stages(emulator)[requests:] == ["models"]
        assert emulator.open_connections == connections


def cut(peer: Peer) -> None:
    """Take the beginning of a request, and go."""
    peer.arrived()


def reset(peer: Peer) -> None:
    """Take a request, and reset the connection."""
    peer.receive()
    peer.reset()


@pytest.mark.parametrize(("script", "size"), [(cut, 4_000_000), (reset, 1)], ids=["sending", "reading"])
def test_a_connection_of_ours_that_breaks_harms_no_other(
    used: ssl.SSLSocket, ca: str, script: Script, size: int
) -> None:
    """Whoever calls us may hold other connections in the same thread."""
    used.setblocking(False)
    with Server(script, tls=True) as server, Client("key", api_url=server.url, verify=ca, retry=None) as client:
        with pytest.raises(NetworkError):
            client.ask("x" * size, conversation="t-1", parent_message_id="root")
        with pytest.raises(ssl.SSLWantReadError):
            used.recv(1)
