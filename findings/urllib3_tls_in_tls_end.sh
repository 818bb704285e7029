#!/usr/bin/env bash
# urllib3 2.8.0 and 1.26.20: reading from SSLTransport, which urllib3 uses for TLS inside of TLS (an https proxy), returns the integer 0
# and not b"" when the other side ends the connection without a TLS goodbye, as many servers do. ssl.SSLSocket, for which it
# stands in, returns b"" there. Whoever asks len() of what recv() returned, or joins it, fails with a TypeError.
#
# Expected: b"" from both. Seen: b"" from SSLSocket, 0 from SSLTransport.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/find.py" <<'PYTHON'
import socket
import ssl
import threading

import trustme
import urllib3
from urllib3.util.ssltransport import SSLTransport

authority = trustme.CA()
server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(server_side)
client_side = ssl.create_default_context()
authority.configure_trust(client_side)


def serve(sock):
    tls = server_side.wrap_socket(sock, server_side=True)
    tls.sendall(tls.recv(5))
    socket.socket.shutdown(tls, socket.SHUT_RDWR)  # the end of the connection, without a goodbye of TLS
    tls.close()


def last_read(wrap):
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: serve(listener.accept()[0]))
    thread.start()
    with listener, wrap(socket.create_connection(listener.getsockname())) as tls:
        tls.sendall(b"hello")
        assert tls.recv(5) == b"hello"
        end = tls.recv(5)
    thread.join()
    return end


seen = [
    last_read(lambda sock: client_side.wrap_socket(sock, server_hostname="localhost")),
    last_read(lambda sock: SSLTransport(sock, client_side, server_hostname="localhost")),
]
print(f"urllib3 {urllib3.__version__}: SSLSocket {seen[0]!r}, SSLTransport {seen[1]!r}")
assert seen == [b"", 0], "this has changed"
PYTHON
for version in 1.26.20 2.8.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install -qq trustme==1.2.1 "urllib3==$version"
    "$folder/$version/bin/python" "$folder/find.py"
done
