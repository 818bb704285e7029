#!/usr/bin/env bash
# hypercorn 0.18.0: with several workers, --graceful-timeout gives responses no time. The first worker that has nothing to do
# ends, and then all others are killed in the middle of what they send.
#
# On SIGTERM, each worker stops taking connections and lets its responses end, for as long as the option says. With one
# worker that is what happens. With two, the master waits for the first of them to end, which an idle one does at once, and
# sends SIGTERM to the rest; they have no handler for it. So a restart cuts every download and every stream, and the option
# that is there to prevent it seems to be set. The exit status is 0.
#
# Expected: a response of two seconds is sent to its end, within a grace of thirty. Seen: so it is with one worker; with two,
# it is cut well before its end.
# It ends with 1 if this changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq hypercorn==0.18.0
cd "$folder"
cat >application.py <<'PYTHON'
import asyncio


async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"%d " % number, "more_body": True})
            await asyncio.sleep(0.4)
        await send({"type": "http.response.body", "body": b"end"})
PYTHON

"$folder/venv/bin/python" - <<'PYTHON'
import http.client
import socket
import subprocess
import sys
import time


def connect(port):
    for _ in range(200):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            client.connect()
            return client
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("hypercorn does not start")


def response_over_a_restart(workers):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--workers", str(workers), "--graceful-timeout", "30", "--bind", f"127.0.0.1:{port}"]
    server = subprocess.Popen([sys.executable, "-m", "hypercorn", *options, "application:application"])
    try:
        client = connect(port)
        time.sleep(2)  # for the other worker
        client.request("GET", "/")
        reply = client.getresponse()
        received = reply.read(2)
        server.terminate()
        try:
            received += reply.read()
        except http.client.IncompleteRead as error:
            received += error.partial
        return received.decode(), server.wait(30)
    finally:
        server.kill()
        server.wait()


one, two = response_over_a_restart(1), response_over_a_restart(2)
print("with one worker:", one)
print("with two workers:", two)
raise SystemExit(not (one == ("0 1 2 3 4 end", 0) and two[0] != one[0] and two[1] == 0))
PYTHON
