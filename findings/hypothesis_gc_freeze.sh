#!/usr/bin/env bash
# hypothesis 6.170.17 on Python 3.14 and newer: after gc.freeze(), the first test whose examples are derandomized ends in
# a HypothesisWarning about a generator of random numbers which Hypothesis itself made, and holds.
#
# Test-suites freeze what was imported, so that many looks for garbage stay cheap. register_random() asks
# gc.get_referrers() who holds a generator, and frozen objects are in no generation that is searched. The holder is a
# thread-local dictionary of Hypothesis, made when it was imported. Up to Python 3.13 the garbage collector does not
# track such a dictionary before it holds something, so it isn't frozen. Hypothesis derandomizes by itself if the
# variable CI is set: a suite that makes errors of warnings fails there and nowhere else.
#
# Expected: no warning, as without freeze(). Seen: the warning. One example before freeze() avoids it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=$(command -v python3.14 || command -v python3.15) || { echo "needs Python 3.14 or 3.15"; exit 1; }
cat >"$folder/find.py" <<'PYTHON'
import gc
import sys
import warnings

import hypothesis
from hypothesis import given, settings, strategies


@settings(derandomize=True, database=None)
@given(strategies.none())
def example(nothing):
    assert nothing is None


first = sys.argv[1]
if first == "example":
    example()
if first != "nothing":
    gc.freeze()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    example()
seen = [warning.category.__name__ for warning in caught]
print(f"hypothesis {hypothesis.__version__}, Python {sys.version.split()[0]}, first {first}: {seen}")
assert seen == (["HypothesisWarning"] if first == "freeze" else []), "this has changed"
PYTHON
"$python" -m venv --without-pip "$folder/venv"
python3 -m pip --python "$folder/venv/bin/python" install -qq hypothesis==6.170.17
for first in nothing freeze example; do
    "$folder/venv/bin/python" "$folder/find.py" "$first"
done
