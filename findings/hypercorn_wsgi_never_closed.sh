#!/usr/bin/env bash
# hypercorn 0.18.0: a WSGI application is never told that its reader has left. The response is iterated to its end, and its
# close() does not run before, as if somebody read it.
#
# WSGI has close() for that: a server calls it when a request ends early, too, and gunicorn, uWSGI and waitress do with the
# next piece that they can't send. An application that streams what lasts, such as events or a log, has no end: each reader
# that leaves costs a thread for good, and what it was reading goes on, such as an answer that somebody pays for.
#
# Expected: close() soon after the reader has left. Seen: with waitress 3.0.2 so; with hypercorn all 30 pieces are taken
# first.
# It ends with 1 if this changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq hypercorn==0.18.0 waitress==3.0.2
cd "$folder"
cat >application.py <<'PYTHON'
import time


class Pieces:
    def __init__(self):
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.taken == 30:
            raise StopIteration
        self.taken += 1
        time.sleep(0.1)
        return b"x" * 1000

    def close(self):
        print("closed after", self.taken, flush=True)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Pieces()
PYTHON

"$folder/venv/bin/python" - <<'PYTHON'
import socket
import subprocess
import sys
import time


def connect(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def pieces_taken(*command):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [word.format(port=port) for word in command]
    server = subprocess.Popen([sys.executable, "-m", *options], stdout=subprocess.PIPE, text=True)
    try:
        with connect(port) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reader.recv(100)
        for line in server.stdout:
            if line.startswith("closed after"):
                return int(line.split()[-1])
    finally:
        server.kill()
        server.wait()


hypercorn = pieces_taken("hypercorn", "--workers", "0", "--bind", "127.0.0.1:{port}", "wsgi:application:application")
waitress = pieces_taken("waitress", "--listen=127.0.0.1:{port}", "application:application")
print(f"pieces taken of 30, by a reader that left after the first: waitress {waitress}, hypercorn {hypercorn}")
raise SystemExit(not (waitress < 30 and hypercorn == 30))
PYTHON
