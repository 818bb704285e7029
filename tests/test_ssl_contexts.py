"""What connections trust is read once, and again when it has changed."""

import errno
import os
import pickle
import platform
import shutil
import socket
import ssl
import struct
import warnings
from pathlib import Path
from typing import List, Optional

import pytest
from support import Peer, Server, Worker, answering, authority, authority_file, collect_garbage

from copilot_sync import Client
from copilot_sync.emulator import Emulator
from copilot_sync.errors import NetworkError
from copilot_sync.protocol.requests import Request
from copilot_sync.settings import Timeout
from copilot_sync.transport import ssl_contexts
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport
from copilot_sync.transport.ssl_contexts import SSLContextCache, fault_of

CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return authority_file(tmp_path)


def subjects(context: ssl.SSLContext) -> int:
    return len(context.get_ca_certs())


def test_a_file_is_read_once(ca: str) -> None:
    """However many ask, and at the same time."""
    trusted = SSLContextCache()
    workers = [Worker(lambda: trusted.context(ca)) for _ in range(8)]
    assert len({id(worker.result()) for worker in workers}) == 1
    assert subjects(trusted.context(ca)) == 1


def test_a_certificate_for_another_host_is_refused(ca: str) -> None:
    """What is kept is as strict as what ``requests`` would make for each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("github.example").configure_cert(context)
    with Emulator(ssl_context=context) as emulator, Client("key", api_url=emulator.api_url, verify=ca) as client:
        with pytest.raises(NetworkError, match="not trusted"):
            client.models()


def test_a_file_that_has_changed_is_read_again(ca: str) -> None:
    """A company renews its CA while the process lives on."""
    trusted = SSLContextCache()
    before = trusted.context(ca)
    os.utime(ca, (1, 1))
    assert trusted.context(ca) is not before


def test_a_connection_that_is_reset_before_its_handshake_is_closed(ca: str) -> None:
    """CPython would drop its socket open, and warn of it."""
    with socket.socket() as listening, warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", ResourceWarning)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        ours = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):
            SSLContextCache().context(ca).wrap_socket(ours, server_hostname="localhost")
        collect_garbage()
    assert [str(complaint.message) for complaint in complaints] == []


def test_a_socket_that_was_never_made_is_freed_in_silence() -> None:
    """An interruption may come before it has anything."""
    made = ssl_contexts._Socket.__new__(ssl_contexts._Socket)
    del made
    collect_garbage()


def test_only_so_many_files_are_remembered(ca: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives long and meets many stays small."""
    monkeypatch.setattr(ssl_contexts, "_MOST", 2)
    trusted = SSLContextCache()
    places = [ca, *(str(tmp_path / name) for name in ("one", "two"))]
    for place in places[1:]:
        shutil.copy(ca, place)
    first, *others = [trusted.context(place) for place in places]
    assert [trusted.context(place) for place in places[1:]] == others
    assert trusted.context(ca) is not first


def test_a_file_of_another_size_is_read_again(ca: str) -> None:
    """Also where its time is what it was."""
    trusted = SSLContextCache()
    before, found = trusted.context(ca), os.stat(ca)
    with open(ca, "a") as file:
        file.write("\n")
    os.utime(ca, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert trusted.context(ca) is not before


def test_a_folder_is_looked_at_when_it_is_needed(ca: str) -> None:
    """As the system's own folder of CAs is."""
    context = SSLContextCache().context(os.path.dirname(ca))
    assert subjects(context) == 0


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "garbage"])
def test_what_cannot_be_read_is_an_error_each_time(tmp_path: Path, content: Optional[bytes]) -> None:
    """Nothing half read is kept."""
    place = tmp_path / "ca.pem"
    if content is not None:
        place.write_bytes(content)
    trusted = SSLContextCache()
    for _ in range(2):
        with pytest.raises((FileNotFoundError, ssl.SSLError)):
            trusted.context(str(place))


def fetch(transport: Transport, url: str) -> bytes:
    request = Request("models", "GET", f"{url}/models", "/models", {})
    return transport.fetch(request, lambda prepared: prepared, CallContext(Timeout())).body


def test_connections_share_what_they_trust(ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts and four connections read the file of CAs once."""
    reads: List[str] = []
    read = ssl_contexts._read

    def counted(place: str) -> ssl.SSLContext:
        reads.append(place)
        return read(place)

    monkeypatch.setattr(ssl_contexts, "_read", counted)
    transport = Transport(verify=ca)
    for _ in range(2):
        with Server(answering(CLOSING), tls=True) as server:
            assert [fetch(transport, server.url) for _ in range(2)] == [b"ok", b"ok"]
    transport.close()
    assert reads == [ca]


def test_trust_is_not_shared_with_another_client(ca: str) -> None:
    """What one was told to trust means nothing to the next."""
    with Server(answering(CLOSING), tls=True) as server:
        trusting, doubting = Transport(verify=ca), Transport()
        assert fetch(trusting, server.url) == b"ok"
        with pytest.raises(NetworkError, match="not trusted"):
            fetch(doubting, server.url)
        trusting.close()
        doubting.close()


@pytest.mark.parametrize("variable", [None, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("change", ["vanishes", "is emptied", "becomes garbage"])
def test_a_file_that_cannot_be_used_is_named(
    ca: str, monkeypatch: pytest.MonkeyPatch, variable: Optional[str], change: str
) -> None:
    """By its path, whoever named it, also where it could be used before; and nobody tries again in vain."""
    if variable is not None:
        monkeypatch.setenv(variable, ca)
    with Server(answering(CLOSING), tls=True) as server:
        transport = Transport(verify=True if variable else ca)
        assert fetch(transport, server.url) == b"ok"
        if change == "vanishes":
            os.remove(ca)
        else:
            Path(ca).write_bytes(b"" if change == "is emptied" else b"no certificate")
        with pytest.raises(NetworkError, match="the certificates to check servers with can't be used") as caught:
            fetch(transport, server.url)
        transport.close()
    reason = "No such file or directory" if change == "vanishes" else "it holds no certificates"
    assert f"{ca}: {reason}" in str(caught.value)
    assert f"host 127.0.0.1:{server.port}" in str(caught.value)
    assert not caught.value.may_have_been_sent
    assert caught.value.permanent
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_path_that_no_file_can_have_is_a_fault_too() -> None:
    """The reason is told all the same."""
    fault = fault_of("a\0b")
    assert fault is not None
    is_cpython = platform.python_implementation() == "CPython"  # PyPy has a number for it
    assert fault.strerror == ("no such path" if is_cpython else os.strerror(errno.ENOENT))


def test_what_is_not_the_files_fault_is_not_blamed_on_it(ca: str) -> None:
    """It is looked at once more after a failure, and found to be all right."""

    def refuse(peer: Peer) -> None:
        peer.send(b"no TLS")

    with Server(refuse) as server:
        transport = Transport(verify=ca)
        with pytest.raises(NetworkError, match="TLS failed: ") as caught:
            fetch(transport, server.url.replace("http:", "https:"))
        transport.close()
    assert ca not in str(caught.value)


def test_what_another_thread_read_meanwhile_is_used(ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that meet at a file read it once."""
    trusted, read = SSLContextCache(), SSLContextCache().context(ca)
    found = os.stat(ca)

    class Meddling:
        def __enter__(self) -> None:
            trusted._contexts[ca] = (found.st_ino, found.st_size, found.st_mtime_ns), read

        def __exit__(self, *exc_info: object) -> None:
            """There is nothing to give back."""

    monkeypatch.setattr(ssl_contexts, "_reading", Meddling())
    assert trusted.context(ca) is read
