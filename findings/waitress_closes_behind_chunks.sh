#!/usr/bin/env bash
# waitress 3.0.2: a chunked response ends its connection, although HTTP/1.1 keeps it open and the last chunk tells the end.
#
# An application that streams gives no Content-Length. waitress sends the response in chunks, which is what lets a connection
# go on behind it, and with "Connection: close" all the same. So each question to a server that streams its answers, such as
# one for chat models, costs another connection; over TLS in front of a proxy that keeps none, a handshake as well. A response
# with a length keeps its connection.
#
# Expected: one connection for two requests of either kind. Seen: two for those that are streamed.
# It ends with 1 if this changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq waitress==3.0.2

"$folder/venv/bin/python" - <<'PYTHON'
import http.client
import threading

import waitress


def application(environ, start_response):
    if environ["PATH_INFO"] == "/whole":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "8")])
        return [b"one two "]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"one ", b"two "])


server = waitress.create_server(application, host="127.0.0.1", port=0)
threading.Thread(target=server.run, daemon=True).start()

seen = {}
for path in ("/whole", "/streamed"):
    client = http.client.HTTPConnection("127.0.0.1", server.effective_port)
    ports = set()
    for _ in range(2):
        client.request("GET", path)
        ports.add(client.sock.getsockname()[1])
        reply = client.getresponse()
        assert reply.version == 11 and reply.read() == b"one two "
        print(path, {name: reply.headers[name] for name in ("Content-Length", "Transfer-Encoding", "Connection")})
    seen[path] = len(ports)
print("connections for two requests:", seen)
raise SystemExit(seen != {"/whole": 1, "/streamed": 2})
PYTHON
