#!/usr/bin/env bash
# tomlkit 0.15.2: a table that is added beside a dotted key is written there, and takes over the settings behind it.
#
# The document has a key of several parts, "servers.one.port = 1", and then a key of the top, "title". A table is added to
# "servers". The document in memory is right: "title" is still at the top. Written out, "[servers.two]" stands between the
# two, so that whoever reads the file finds "title" in the new table. Nothing is raised or warned of.
#
# Expected: the table at the end, or an error. Seen: a setting that belongs to another table. It ends with 1 if this changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq tomlkit==0.15.2

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import tomlkit

document = tomlkit.parse('servers.one.port = 1\ntitle = "all"\n')
document["servers"]["two"] = {"host": "b"}
written = document.as_string()
print(written)
meant, read = document.unwrap(), tomlkit.parse(written).unwrap()
print("in memory:", meant)
print("read back:", read)
moved = meant["title"] == "all" and "title" not in read and read["servers"]["two"]["title"] == "all"
sys.exit(0 if moved else 1)
PYTHON
