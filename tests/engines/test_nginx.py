"""What nginx does to replies, as the deployment page says: it was seen, and it is seen again here."""

import re
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple, Union

import pytest
from servers import BECOME, path_of, wait_for_port
from support import PATIENCE, reserved_port

#: With ``proxy_buffering`` on and HTTP/1.1 to the application, and without the two headers of an answer.
CONFIGURATION = """
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip {gzip};
    gzip_types *;
    gzip_min_length 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{application};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
EVENT = b"data: a piece of the answer\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
BY_ITS_END = HEAD + b"Connection: close\r\n\r\n" + EVENT
#: Seconds in which nothing comes that is held back. A busy machine makes it no more likely.
HELD = 0.7


class Application:
    """Sends the beginning of a reply, and the end of it when it is told to."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._may_end = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._reply)
            self._may_end.wait(3 * PATIENCE)

    def end(self) -> None:
        self._may_end.set()

    def close(self) -> None:
        self.end()
        with socket.socket() as wake:  # in case that nobody has asked
            wake.connect_ex(("127.0.0.1", self.port))
        self._thread.join()
        self._listener.close()


Ask = Callable[..., Tuple[Application, socket.socket]]


@pytest.fixture
def ask(start: Callable[..., Any], tmp_path: Path) -> Iterator[Ask]:
    """Ask an application through nginx."""
    opened: List[Union[Application, socket.socket]] = []

    def asked(reply: bytes, gzip: str = "off") -> Tuple[Application, socket.socket]:
        application = Application(reply)
        opened.append(application)
        with reserved_port() as port:
            text = CONFIGURATION.format(folder=tmp_path, gzip=gzip, port=port, application=application.port)
            (tmp_path / "nginx.conf").write_text(text)
            place = ["-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
            start(["-c", BECOME, path_of("nginx"), *place])
            wait_for_port(port)
        reader = socket.create_connection(("127.0.0.1", port), timeout=3 * PATIENCE)
        opened.append(reader)
        reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n")
        return application, reader

    yield asked
    for each in reversed(opened):
        each.close()


def _read_until(reader: socket.socket, expected: bytes) -> bytes:
    received = b""
    while expected not in received:
        more = reader.recv(65536)
        assert more, received
        received += more
    return received


def _is_held(reader: socket.socket) -> bool:
    """Whether no byte of the body comes for a while."""
    reader.settimeout(HELD)
    received = b""
    try:
        while True:
            more = reader.recv(65536)
            if not more:
                return False
            received += more
    except socket.timeout:
        return received.partition(b"\r\n\r\n")[2] == b""
    finally:
        reader.settimeout(3 * PATIENCE)


def test_a_chunked_reply_is_passed_on_at_once(ask: Ask) -> None:
    """Although nginx may buffer it: the first piece is here while the application has not ended."""
    _, reader = ask(CHUNKED)
    assert EVENT in _read_until(reader, EVENT)


def test_a_reply_that_ends_with_its_connection_is_held_back(ask: Ask) -> None:
    """It comes when it has ended."""
    application, reader = ask(BY_ITS_END)
    assert _is_held(reader)
    application.end()
    _read_until(reader, EVENT)


@pytest.mark.parametrize("reply", [CHUNKED, BY_ITS_END], ids=["chunked", "by its end"])
def test_a_reply_that_is_compressed_is_held_back(ask: Ask, reply: bytes) -> None:
    """Of both kinds."""
    _, reader = ask(reply, gzip="on")
    assert _is_held(reader)


def test_a_cut_reply_looks_whole(ask: Ask) -> None:
    """The application dies in the middle of a reply that ends with its connection: a last chunk comes out."""
    application, reader = ask(BY_ITS_END)
    application.end()
    received = _read_until(reader, b"\r\n0\r\n\r\n")
    assert re.search(rb"(?i)transfer-encoding: chunked", received)
