"""How programs that serve are found, started and waited for."""

import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest
from support import PATIENCE

#: Becomes another program, so that one that is no Python is started and ended like the others.
BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


def path_of(program: str) -> str:
    """Where a program is; a test that needs one which is not here is skipped."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    found = shutil.which(program, path=places)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def wait_for_port(port: int) -> None:
    """Wait until something listens there: it says so in no other way."""
    end = time.monotonic() + 3 * PATIENCE
    while time.monotonic() < end:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the server does not start")
