#!/usr/bin/env bash
# httpretty 1.1.4 with requests 2.34.2: while connections to the network are forbidden (allow_net_connect=False), not even a
# registered URL can be fetched on urllib3 2.8.0. It works on urllib3 1.26.20, and on 2.8.0 with allow_net_connect=True.
#
# urllib3 2.8.0 looks for the socket's "shutdown" before it reads a reply, and asks with a default in case there is none. The
# stand-in of httpretty answers the question with an exception that is no AttributeError, so the default is never used.
#
# Expected: the registered body in all four cases. Seen: UnmockedError in one of them, the strictest and most usual one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/find.py" <<'PYTHON'
import sys

import httpretty
import requests
import urllib3

for allowed in (True, False):
    with httpretty.enabled(allow_net_connect=allowed, verbose=False):
        httpretty.register_uri("GET", "http://example.test/", body="registered")
        try:
            seen = requests.get("http://example.test/").text
        except Exception as error:
            seen = type(error).__name__
    print(f"urllib3 {urllib3.__version__}, allow_net_connect={allowed}: {seen}")
    expected = "UnmockedError" if urllib3.__version__.startswith("2.") and not allowed else "registered"
    assert seen == expected, "this has changed"
PYTHON
for version in 1.26.20 2.8.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install -qq httpretty==1.1.4 requests==2.34.2 "urllib3==$version"
    "$folder/$version/bin/python" "$folder/find.py"
done
