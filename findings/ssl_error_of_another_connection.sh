#!/usr/bin/env bash
# CPython 3.14.10 and 3.15.2 with OpenSSL 3.6: after one TLS connection broke (the peer had closed it), every other TLS
# connection of the same thread ends with the error of the broken one as soon as it has to wait for bytes. It goes on
# until some connection of the thread makes a handshake.
#
# OpenSSL keeps a queue of errors for each thread. Since 3.14, Python raises the system error that it finds there, and
# leaves it in the queue; and it does not empty the queue before it reads. A call that would say "wait" is then taken for
# one that failed. Other releases may have been given this since; CPython 3.13.0 with OpenSSL 3.0 waits as it should.
#
# Expected: TimeoutError, since the peer is there and says nothing. Seen: BrokenPipeError, each time; TimeoutError again
# after a handshake.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=$(command -v python3.14 || command -v python3.15) || { echo "needs Python 3.14 or 3.15"; exit 1; }
cat >"$folder/find.py" <<'PYTHON'
import contextlib
import socket
import ssl
import sys
import threading

import trustme

authority = trustme.CA()
server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(server_side)
client_side = ssl.create_default_context()
authority.configure_trust(client_side)
listener = socket.create_server(("127.0.0.1", 0))


def connect():
    ends = []
    accept = threading.Thread(target=lambda: ends.append(server_side.wrap_socket(listener.accept()[0], server_side=True)))
    accept.start()
    client = client_side.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost")
    accept.join()
    client.settimeout(0.2)
    ends[0].send(b".")
    client.recv(1)
    return client, ends[0]


def wait(client):
    try:
        client.recv(1)
    except OSError as error:
        return type(error).__name__


good, silent_peer = connect()
broken, peer = connect()
seen = [wait(good)]
peer.close()
with contextlib.suppress(BrokenPipeError):
    while True:
        broken.send(b".")
seen += [wait(good), wait(good)]
other = connect()
seen += [wait(good)]
print(f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}: {seen}")
assert seen == ["TimeoutError", "BrokenPipeError", "BrokenPipeError", "TimeoutError"], "this has changed"
PYTHON
"$python" -m venv --without-pip "$folder/venv"
python3 -m pip --python "$folder/venv/bin/python" install -qq trustme==1.2.1
"$folder/venv/bin/python" "$folder/find.py"
