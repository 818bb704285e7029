#!/usr/bin/env bash
# DuckDB 2.0.1: read_json loses values without a word if the first 20,480 of their column are null. The column gets the type
# NULL, and everything behind reads as NULL. DuckDB 1.5.6 gives it the type JSON and keeps the values.
#
# The types come from the first 20,480 lines (sample_size). A value that does not fit the type found there is an error, and
# the message says what to do; so it is here, too, if the key is missing in those lines. Only a null in its place, which is
# how careful programs write a missing value, loses the data: failures of a batch read as no failures. And one such column is enough for 2.0.1 to pass over all keys that begin behind, at the
# top and in the objects of other columns, which it takes for errors otherwise.
#
# Expected: the late value, or an error. Seen: the late value with 1.5.6, NULL with 2.0.1. A key that begins behind is an
# error with 1.5.6; with 2.0.1 it is lost if another column is null there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/find.py" <<'PYTHON'
import duckdb


def late_value(before, count, late='{"id": 2, "error": "late"}'):
    with open("lines.jsonl", "w") as file:
        file.write(before * count + late)
    try:
        rows = duckdb.sql("SELECT * FROM read_json('lines.jsonl')").fetchall()
    except duckdb.Error as error:
        return type(error).__name__
    return rows[-1][-1]


null, missing = '{"id": 1, "error": null}\n', '{"id": 1}\n'
seen = [late_value(null, 20479), late_value(null, 20480), late_value(missing, 20480)]
print(f"DuckDB {duckdb.__version__}: behind 20,479 and 20,480 nulls, and behind 20,480 lines without the key: {seen}")
is_new = duckdb.__version__.startswith("2.")
assert seen == ["late", None if is_new else '"late"', "InvalidInputException"], "this has changed"
another = [
    late_value(null, 20480, '{"id": 2, "error": null, "more": 3}'),
    late_value('{"error": null, "id": {"a": 1}}\n', 20480, '{"error": null, "id": {"a": 1, "b": 2}}'),
]
print("another key that begins there, at the top and in an object:", another)
assert another == ([None, {"a": 1}] if is_new else ["InvalidInputException"] * 2), "this has changed"
PYTHON
for version in 1.5.6 2.0.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install -qq "duckdb==$version"
    (cd "$folder" && "$version/bin/python" find.py)
done
