"""docs/messages.rst is a promise: its Python runs, its tables have what the code has, its shapes are what is sent."""

import dataclasses
import json
import re
from pathlib import Path
from typing import List

import pytest
from blocks import DOCS, Block, blocks_of, name_of, prepare, type_block

from copilot_sync.emulator import Emulator
from copilot_sync.inline_files import FILE_LIMIT, inline_files
from copilot_sync.message_parts import _IMAGES, read_content
from copilot_sync.protocol.requests import MessageOptions

PAGE = (DOCS / "messages.rst").read_text(encoding="utf-8")
SHAPES = [json.loads(line) for line in re.findall(r"^ {4}(\{.*\})$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("block", blocks_of(DOCS / "messages.rst", "python"), ids=name_of)
def test_each_python_block_runs(block: Block, served: Emulator, tmp_path: Path) -> None:
    """With nothing but the environment set, and the file that it names."""
    prepare(tmp_path, served)
    type_block(block, tmp_path)


def test_the_options_are_those_of_the_code() -> None:
    """All of them, in their order."""
    rows: List[str] = re.findall(r"^``(\w+)`` +(?:``\w+``|any other) ", PAGE, re.MULTILINE)
    assert rows == [field.name for field in dataclasses.fields(MessageOptions)]


def test_the_parts_can_be_sent() -> None:
    """As they stand; each shape of a file and an image on the page has the fields of what is sent."""
    kinds = ("image_url", "input_image", "file", "input_file")
    parts = [shape for shape in SHAPES if shape.get("type") in kinds and "path" not in shape]
    _, attachments = read_content(0, parts)
    assert (len(parts), len(attachments.media), len(attachments.references)) == (4, 2, 2)
    (file,) = inline_files([("app.py", "…")])
    assert file in SHAPES
    assert attachments.media[0].items() <= {**SHAPES[-1], "url": "https://example.com/cat.png"}.items()


def test_limits_and_extensions_are_those_of_the_code() -> None:
    """In the words of the page."""
    assert f"at most {FILE_LIMIT >> 20} MiB" in PAGE
    extensions = PAGE.split("follows from the extension in its address:")[1].split(". Without")[0]
    assert set(re.findall(r"``(\.\w+)``", extensions)) == set(filter(None, _IMAGES))
    assert f"Without an extension it is sent as ``image/{_IMAGES['']}``" in PAGE
