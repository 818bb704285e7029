#!/usr/bin/env bash
# Sphinx 8.1.3: what a page says of a type alias stays English in a translated site, although its translation is complete.
#
# "autodata" adds a sentence of its own for an alias: "alias of", and the type. Text below the directive and that sentence
# become one paragraph. The gettext builder runs in English, so the template asks for a translation of both together. The
# builder of the translated site has its sentence in that language already, looks for a text that is half English and half
# translated, and finds none. "sphinx-build -W" says nothing: untranslated text is no warning.
#
# Expected: two texts, or a sentence that is translated afterwards. Seen: the English text, above a sentence in Russian.
# It ends with 1 if this changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq sphinx==8.1.3

mkdir -p "$folder/docs/locale/ru/LC_MESSAGES"
cd "$folder/docs"
cat >../shop.py <<'PYTHON'
from typing import Union

Price = Union[int, float]
PYTHON
cat >conf.py <<'PYTHON'
import sys

sys.path.insert(0, "..")
extensions = ["sphinx.ext.autodoc"]
locale_dirs = ["locale"]
PYTHON
printf 'Shop\n====\n\nA plain sentence.\n\n.. autodata:: shop.Price\n\n   A price in euros.\n' >index.rst
"$folder/venv/bin/sphinx-build" -q -b gettext . ../pot

"$folder/venv/bin/python" - <<'PYTHON'
from babel.messages.pofile import read_po, write_po

with open("../pot/index.pot", "rb") as file:
    catalog = read_po(file, locale="ru")
for message in catalog:
    if message.id:
        print("to translate:", message.id)
        message.string = "По-русски: " + message.id
with open("locale/ru/LC_MESSAGES/index.po", "wb") as file:
    write_po(file, catalog)
PYTHON
"$folder/venv/bin/sphinx-build" -q -W -b text -D language=ru . ../text
cat ../text/index.txt

grep -q '^По-русски: A plain sentence' ../text/index.txt
grep -q '^ *A price in euros' ../text/index.txt
grep -q 'псевдоним' ../text/index.txt
