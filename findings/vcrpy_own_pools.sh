#!/usr/bin/env bash
# vcrpy 9.4.2 with requests 2.34.2 and urllib3 2.8.0: a session whose adapter uses pool classes with a ConnectionCls of their
# own is neither replayed nor kept from the network. With record_mode="none", which is meant to forbid every request that
# is not in the cassette, the request goes out and its real answer comes back; an ordinary session is refused, as it should be.
#
# vcrpy puts its connections in place of HTTPConnectionPool.ConnectionCls alone. A subclass that names another (urllib3
# documents that attribute, and libraries subclass it to tune sockets) never sees the replacement.
#
# Expected: both sessions raise CannotOverwriteExistingCassetteException.
# Seen: the ordinary one does, the other one reaches the server.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq vcrpy==9.4.2 requests==2.34.2 urllib3==2.8.0
cat >"$folder/find.py" <<'PYTHON'
import http.server
import threading

import requests
import vcr
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

asked = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"real")

    def log_message(self, *args):
        pass


class OwnConnection(HTTPConnection):
    pass


class OwnPool(HTTPConnectionPool):
    ConnectionCls = OwnConnection


class OwnAdapter(HTTPAdapter):
    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": OwnPool}


def ask(session, url):
    try:
        return session.get(url).text
    except Exception as error:
        return type(error).__name__


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
ordinary, own = requests.Session(), requests.Session()
own.mount("http://", OwnAdapter())
with vcr.use_cassette("never-written.yaml", record_mode="none"):
    seen = {"ordinary": ask(ordinary, url), "own pool class": ask(own, url), "requests that arrived": len(asked)}
print(seen)
assert seen == {
    "ordinary": "CannotOverwriteExistingCassetteException",
    "own pool class": "real",
    "requests that arrived": 1,
}, "this has changed"
server.shutdown()
PYTHON
cd "$folder" && venv/bin/python find.py
