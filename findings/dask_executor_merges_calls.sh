#!/usr/bin/env bash
# distributed 2026.8.0: two calls of submit() on the executor that Client.get_executor() returns run once if their function and their
# arguments are equal, while the first is running or its result is held. Both futures get the one result.
#
# Dask's own Client.submit() treats functions as pure unless it is told otherwise, and the executor inherits that. It is offered
# as an executor of concurrent.futures, where each submit() schedules a call: whoever submits "send the next message" twice has
# it sent once. get_executor(pure=False) runs each.
#
# Expected: two calls and two results, as from ThreadPoolExecutor. Seen: one call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/find.py" <<'PYTHON'
import uuid
from concurrent.futures import ThreadPoolExecutor

import distributed


def ticket(kind):
    return f"{kind} {uuid.uuid4()}"


def different(executor):
    futures = [executor.submit(ticket, "first class") for _ in range(2)]
    return len({future.result() for future in futures})


print("distributed", distributed.__version__)
with ThreadPoolExecutor(2) as pool:
    seen = {"ThreadPoolExecutor": different(pool)}
with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
    for options in ({}, {"pure": False}):
        with client.get_executor(**options) as executor:
            seen[f"get_executor({options or ''})"] = different(executor)
for name, count in seen.items():
    print(f"{name}: 2 calls submitted, {count} different results")
assert list(seen.values()) == [2, 1, 2], "this has changed"
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq distributed==2026.8.0 dask==2026.8.0
"$folder/venv/bin/python" "$folder/find.py"
