"""docs/emulator.rst is a promise: its Python runs, and its faults, stages, plans and options are those of the code."""

import dataclasses
import http.client
import io
import re
from pathlib import Path

import pytest
from blocks import DOCS, Block, blocks_of, name_of, texts_of, type_block
from emulated import FAULTS, api, new_thread, post

from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, Reply
from copilot_sync.emulator.routes import STAGES
from copilot_sync.emulator.script_file import MAX_ENTRIES, MAX_FILE, MAX_LINE, load_script
from copilot_sync.emulator.state import PLANS

PAGE = (DOCS / "emulator.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks_of(DOCS / "emulator.rst", "python"), ids=name_of)
def test_each_python_block_runs(block: Block, tmp_path: Path) -> None:
    """Without an account."""
    type_block(block, tmp_path)


def test_every_fault_has_a_row() -> None:
    """And every row a fault."""
    assert set(re.findall(r"^``Fault\.(\w+)`` ", PAGE, re.MULTILINE)) == set(FAULTS)


def test_the_script_does_what_its_comments_say(emulator: Emulator) -> None:
    """It is loaded as it stands in the page."""
    (script,) = texts_of(DOCS / "emulator.rst", "text")
    load_script(emulator, io.BytesIO(script.encode()))
    first, second, third = (post(emulator, new_thread(emulator)) for _ in range(3))
    assert [b"Hello," in first.body, b"skillExecution" in second.body, third.status] == [True, True, 429]
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(emulator, new_thread(emulator))
    assert re.findall(rb'"body":"(.*?)"', caught.value.partial) == [b"Please", b" come"]
    assert b"tomorrow" in post(emulator, new_thread(emulator)).body
    assert [api(emulator, "GET", "/models").status for _ in range(2)] == [503, 503]


def test_every_key_of_a_line_is_in_the_table() -> None:
    """Those that are no fields of a reply and no arguments of a fault."""
    assert set(re.findall(r"^``([a-z]+)``  ", PAGE, re.MULTILINE)) == {"reply", "fault", "stage", "times", "always"}


def test_the_bounds_of_a_script_are_those_of_the_code() -> None:
    """Bytes of a file and of a line, and the number of what is scripted."""
    prose = " ".join(PAGE.split())
    assert f"text of at most {MAX_FILE >> 20} MiB. A line has at most {MAX_LINE >> 20} MiB" in prose
    assert f"at most {MAX_ENTRIES:,} replies and faults" in prose


def test_every_stage_and_every_plan_is_named() -> None:
    """In the order of the code."""
    (stages,) = re.findall(r"of a stage: (.*?)\.  ", PAGE.replace("\n", " "))
    assert tuple(re.findall(r"``(\w+)``", stages)) == STAGES
    (plans,) = re.findall(r"``EmulatorOptions.plan`` is (.*)\.", PAGE)
    assert set(re.findall(r"``\"(\w+)\"``", plans)) == set(PLANS)


def test_every_option_that_is_named_exists() -> None:
    """What has an underscore is an option, or a part of the emulator's face that is named as such."""
    options = {field.name for field in dataclasses.fields(EmulatorOptions)}
    others = {name for face in (Emulator, Fault) for name in dir(face)} | {
        each.name for each in dataclasses.fields(Reply)
    }
    wire = {"model_picker_enabled", "model_not_supported", "quota_exceeded", "user_weekly_rate_limited"}
    named = set(re.findall(r"``(?:\w+\.)?([a-z]+(?:_[a-z]+)+)(?:\(\)|=[^`]*)?``", PAGE))
    assert named - wire - others - {"copilot_sync", "copilot_emulator", "load_script"} <= options
    assert {"absent_parent", "gone_parent", "null_lists", "unlisted_models", "auto_model"} <= named
