#!/usr/bin/env bash
# uvloop 0.22.1 (and 0.21.0), Linux: after the peer has reset a connection, a reader that was added with add_reader is
# called once, and then never again, even if it left bytes unread and has not met the reset. On asyncio's own loop it is
# called until it has.
#
# libuv stops watching a descriptor that reports an error. So a callback that reads a part of what has arrived, and leaves
# the rest to the next call, waits for ever.
#
# Expected: all 10 bytes, and the reset. Seen: the first byte, and nothing more within two seconds.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet uvloop==0.22.1

"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import socket
import struct
import sys

import uvloop


async def outcome():
    """Read one byte for each call of the reader: how many came, and whether the reset was met, within two seconds."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.sendall(b"0123456789")
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()  # with a reset
    client.setblocking(False)
    read, ended = [], loop.create_future()

    def reader():
        try:
            data = client.recv(1)
        except ConnectionResetError:
            data = b""
        read.append(data)
        if not data:
            loop.remove_reader(client)
            ended.set_result(True)

    loop.add_reader(client, reader)
    done, _ = await asyncio.wait({ended}, timeout=2)
    if not done:
        loop.remove_reader(client)
    client.close()
    return len(b"".join(read)), bool(done)


def run(new_loop):
    loop = new_loop()
    try:
        return loop.run_until_complete(outcome())
    finally:
        loop.close()


print("Python", sys.version.split()[0], "uvloop", uvloop.__version__)
plain, fast = run(asyncio.new_event_loop), run(uvloop.new_event_loop)
print("asyncio: bytes read and reset met:", plain)
print("uvloop:  bytes read and reset met:", fast)
assert plain == (10, True), plain
assert fast == (1, False), fast
PYTHON
echo "as described"
