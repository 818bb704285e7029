"""Prompts as they come in: files of three formats, values, and what is none of them."""

import csv
import io
import os
import threading
from pathlib import Path
from typing import Any, Dict, List, Union

import pytest

from copilot_sync import Conversation
from copilot_sync.batch import prompt_files
from copilot_sync.batch.prompt_files import read
from copilot_sync.batch.prompts import BadLine, Prompt, read_prompt

Read = List[Union[Prompt, BadLine]]


def written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def read_file(folder: Path, name: str, content: bytes) -> Read:
    with read(written(folder, name, content)) as prompts:
        return list(prompts)


def test_a_line_of_json_is_a_prompt(tmp_path: Path) -> None:
    """With everything that may stand in it; what is not known is left alone."""
    content = b"""{"id": "a", "prompt": "hi", "model": "o1-mini", "system": "be brief", "conversation": "t-1", "x": 1}
{"id": 7, "messages": [{"role": "user", "content": "hi"}]}
{"prompt": "without an id", "model": null, "system": "", "conversation": ""}
"""
    assert read_file(tmp_path, "in.jsonl", content) == [
        Prompt("a", "hi", "o1-mini", "be brief", Conversation("t-1")),
        Prompt(7, [{"role": "user", "content": "hi"}]),
        Prompt(3, "without an id"),
    ]


def test_a_conversation_may_be_whole(tmp_path: Path) -> None:
    """As ``Conversation.to_dict`` gives it, with the message that the prompt answers."""
    content = b'{"prompt": "hi", "conversation": {"conversation_id": "t", "message_id": "m"}}'
    (prompt,) = read_file(tmp_path, "in.jsonl", content)
    assert isinstance(prompt, Prompt)
    assert isinstance(prompt.conversation, Conversation)
    assert prompt.conversation.message_id == "m"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "it is not valid JSON"),
        (b'{"prompt": "torn', "it is not valid JSON"),
        (b"[" * 100_000, "it is not valid JSON"),
        (b'["a list"]', "it is not a JSON object"),
        (b'{"prompt": "\xff"}', "it is not UTF-8 text"),
        (b"{}", "a prompt has either prompt or messages, and this one has neither"),
        (b'{"prompt": "a", "messages": []}', "and this one has prompt and messages"),
        (b'{"prompt": 5}', "prompt must be a string, not int"),
        (b'{"prompt": "  "}', "the prompt is empty"),
        (b'{"prompt": "\\ud800"}', "not valid Unicode"),
        (b'{"messages": "hi"}', "messages must be a list, not str"),
        (b'{"messages": []}', "messages must not be empty"),
        (b'{"messages": [{"role": "user"}]}', "message 0 has no content"),
        (b'{"prompt": "a", "model": 4}', "model must be a string, not int"),
        (b'{"prompt": "a", "system": ["x"]}', "system must be a string, not list"),
        (b'{"prompt": "a", "conversation": 4}', "conversation must be a Conversation or its id, not int"),
        (b'{"prompt": "a", "conversation": ".."}', "'..' is not an id"),
        (b'{"prompt": "a", "conversation": {}}', "a conversation needs a conversation_id"),
        (b'{"prompt": "a", "id": [1]}', "id must be a string or a whole number, not list"),
        (b'{"prompt": "a", "id": true}', "id must be a string or a whole number, not bool"),
        (b'{"prompt": "a", "id": 1.5}', "id must be a string or a whole number, not float"),
        (b'{"prompt": "a", "id": "\\udfff"}', "not valid Unicode"),
    ],
)
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, line: bytes, reason: str) -> None:
    """It is a value, and the lines around it are read as if it were not there."""
    first, bad, last = read_file(tmp_path, "in.jsonl", b'{"prompt": "first"}\n' + line + b'\n{"prompt": "last"}\n')
    assert (first, last) == (Prompt(1, "first"), Prompt(3, "last"))
    assert isinstance(bad, BadLine)
    assert (bad.id, bad.number) == (2, 2)
    assert bad.reason.startswith("line 2: ")
    assert reason in bad.reason


def test_a_bad_line_keeps_the_id_that_it_has(tmp_path: Path) -> None:
    """So that its failure can be told from the others."""
    (bad,) = read_file(tmp_path, "in.jsonl", b'{"id": "a", "prompt": ""}')
    assert isinstance(bad, BadLine)
    assert (bad.id, bad.number) == ("a", 1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_lines_end_as_they_may(tmp_path: Path, end: bytes) -> None:
    """A byte order mark, blank lines and a missing last end are no harm; U+2028 ends nothing."""
    content = end.join([b'\xef\xbb\xbf{"prompt": "a"}', b"", b"  ", '{"prompt": "b\u2028c"}'.encode()])
    assert read_file(tmp_path, "in.jsonl", content) == [Prompt(1, "a"), Prompt(4, "b\u2028c")]


def test_a_line_too_long_is_left_out_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no text at all has no line ends, and would fill the memory."""
    monkeypatch.setattr(prompt_files, "_LONGEST_LINE", 20)
    fits, bad, last = read_file(tmp_path, "in.txt", b"x" * 19 + b"\n" + b"y" * 100 + b"\nlast\n")
    assert (fits, last) == (Prompt(1, "x" * 19), Prompt(3, "last"))
    assert bad == BadLine(2, 2, "line 2: it is longer than 20 bytes")
    assert read_file(tmp_path, "in.txt", b"y" * 100) == [BadLine(1, 1, "line 1: it is longer than 20 bytes")]


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    """The number of the line is its id; blank lines are none."""
    content = b'one\n\ntwo, three\r\n{"prompt": 1}\n'
    assert read_file(tmp_path, "in.txt", content) == [
        Prompt(1, "one"),
        Prompt(3, "two, three"),
        Prompt(4, '{"prompt": 1}'),
    ]


def test_csv_has_named_columns(tmp_path: Path) -> None:
    """In any order and case, with quotes and line ends in them; other columns are left alone."""
    content = b'\xef\xbb\xbfid,Note,Prompt,model\r\na,x,"one, and\ntwo ""quoted""",o1-mini\r\n,,two,\r\n'
    content += b"\r\nc,,three\r\n,,,\r\n"
    assert read_file(tmp_path, "in.csv", content) == [
        Prompt("a", 'one, and\ntwo "quoted"', "o1-mini"),
        Prompt(4, "two"),
        Prompt("c", "three"),
    ]


@pytest.mark.parametrize(("name", "delimiter"), [("in.csv", ";"), ("in.tsv", "\t"), ("in.csv", "\t")])
def test_csv_may_be_delimited_otherwise(tmp_path: Path, name: str, delimiter: str) -> None:
    """The delimiter is the one that makes ``prompt`` a column."""
    content = f"id{delimiter}prompt{delimiter}conversation\na{delimiter}one, two{delimiter}t-1\n".encode()
    assert read_file(tmp_path, name, content) == [Prompt("a", "one, two", conversation=Conversation("t-1"))]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"b,hi,o1-mini,more", "it has 4 fields, and there are 3 columns"),
        (b"b,,o1-mini", "the prompt is empty"),
        (b"b, ,o1-mini", "the prompt is empty"),
    ],
)
def test_a_bad_row_is_told_with_its_number(tmp_path: Path, row: bytes, reason: str) -> None:
    """And does not stop the rest."""
    content = b'id,prompt,model\na,"one\ntwo",\n' + row + b"\nc,last,\n"
    first, bad, last = read_file(tmp_path, "in.csv", content)
    assert (first, last) == (Prompt("a", "one\ntwo"), Prompt("c", "last"))
    assert isinstance(bad, BadLine)
    assert bad.number == 4
    assert bad.reason.startswith("line 4: ")
    assert reason in bad.reason


@pytest.mark.parametrize(
    "content", [b"", b"one\ntwo\n", b"id,text\na,b\n"], ids=["empty", "no header", "other columns"]
)
def test_csv_without_the_column_is_refused(tmp_path: Path, content: bytes) -> None:
    """Nothing of it could be asked."""
    with pytest.raises(ValueError, match="must name the columns, and one of them must be prompt"):
        read_file(tmp_path, "in.csv", content)


ROWS = b"id,prompt\na,one\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ROWS + b'b,"x"y\nc,three\n', "line 3: a cell goes on behind its .* from there on \\(2 lines\\)"),
        (ROWS + b'b,"never closed\nc,three\nd,four\n', "line 3: a quote opens a cell here and none .*\\(3 lines\\)"),
        (ROWS + b'b,"first\nc,three\nd,"four"\n', "line 3: a cell goes on behind its closing quote.*\\(3 lines\\)"),
        (ROWS + b'b, "two, too"\n', "line 3: a space stands between a delimiter and a quote"),
        (ROWS + b"b,two\rc,three\n", "line 3: its end is of another kind than those before"),
        (ROWS + b"b,\xe9\nc,three\nd,\xff\n", "line 3 and 1 more: it is not UTF-8 text; save it as UTF-8"),
        (ROWS + b"b,t\0wo\n", "line 3: it has NUL characters"),
        ("id,prompt\na,one\n".encode("utf-16-le"), "UTF-16 without a byte order mark; save it as UTF-8"),
        (b"id,Prompt, prompt\na,b,c\n", "line 1: two columns are called 'prompt'"),
        (b"sep=;\nid,prompt\na,one\n", "line 2: the first line of a CSV must name the columns"),
        (b"note,prompt,note\n", "two columns are called 'note'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1 and 1 more: it is not UTF-8 text"),
    ],
)
def test_a_fault_of_a_csv_as_a_whole_comes_ahead_of_its_first_prompt(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """With the file, the line, and how many lines it costs; nothing behind a fault is ever a row."""
    with read(written(tmp_path, "in.csv", content)) as prompts, pytest.raises(ValueError, match=f"in.csv: .*{reason}"):
        next(iter(prompts))


def test_a_cell_may_be_as_long_as_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever limit the module ``csv`` has in this process; that stays as it is. What is longer is refused."""
    before = csv.field_size_limit()
    text = "word, " * 50_000
    content = f'id,prompt\na,"{text}"\nb,two\n'.encode()
    assert read_file(tmp_path, "in.csv", content) == [Prompt("a", text), Prompt("b", "two")]
    assert csv.field_size_limit() == before == 131_072
    monkeypatch.setattr(prompt_files, "_LONGEST_LINE", 1000)
    with pytest.raises(ValueError, match="line 2: the row is longer than 1000 bytes; perhaps a quote is not closed"):
        read_file(tmp_path, "in.csv", content)
    with pytest.raises(ValueError, match=r"line 2: the row is longer than 1000 bytes.*\(201 lines\)"):
        read_file(tmp_path, "in.csv", b'prompt\n"' + b"a line of it\n" * 200 + b'"\n')


def test_excel_may_say_the_delimiter(tmp_path: Path) -> None:
    """In a line of its own ahead of the columns, with any character; blank lines are none, nor nameless columns."""
    content = b"\xef\xbb\xbfsep=|\r\nid|prompt||\r\n\r\na|one, two; three||\r\n"
    assert read_file(tmp_path, "in.csv", content) == [Prompt("a", "one, two; three")]
    assert read_file(tmp_path, "in.csv", b"\nid;prompt\na;x") == [Prompt("a", "x")]


def test_a_quote_in_the_middle_of_a_cell_is_a_character(tmp_path: Path) -> None:
    """As most readers have it; only at a cell's beginning does it quote."""
    assert read_file(tmp_path, "in.tsv", b'id\tprompt\na\t5" of "x"\nb\t""\n') == [
        Prompt("a", '5" of "x"'),
        BadLine("b", 3, "line 3: the prompt is empty"),
    ]


NAMES = pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.txt"])
CONTENT = {
    "in.jsonl": '{"prompt": "é1"}\n{"prompt": "é2"}\n',
    "in.csv": "prompt,id\né1,1\né2,2\n",
    "in.txt": "é1\né2\n",
}


@NAMES
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_encoding_and_line_ends_are_the_files(tmp_path: Path, name: str, encoding: str, end: str) -> None:
    """Every format takes all that says what it is: UTF-8, the marks of the wider ones, all kinds of line ends."""
    prompts = read_file(tmp_path, name, CONTENT[name].replace("\n", end).encode(encoding))
    assert [prompt.prompt for prompt in prompts if isinstance(prompt, Prompt)] == ["é1", "é2"]
    assert len(prompts) == 2


@NAMES
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_refused(tmp_path: Path, name: str, encoding: str) -> None:
    """Nobody guesses, and no NUL is sent."""
    with pytest.raises(ValueError, match="it has NUL characters.*save it as UTF-8"):
        read_file(tmp_path, name, CONTENT[name].replace("é", "e").encode(encoding))


@NAMES
def test_utf_16_that_breaks_off_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing behind a wrong byte of it can be relied on, so nothing of the file is used."""
    content = CONTENT[name].encode("utf-16")
    with pytest.raises(ValueError, match=r"behind line \d it is not UTF-8 text"):
        read_file(tmp_path, name, content[:-1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"one\ntwo\rthree\nfour\n", "CR ends line 2, and LF line 1 and 2 more: let all lines end"),
        (b"one\n\xe9\nthree\n\xff\n", "line 2 and 1 more: it is not UTF-8 text"),
        (b"one\ntw\0o\n", "line 2: it has NUL characters"),
    ],
)
def test_a_fault_of_a_text_as_a_whole_comes_ahead_of_its_first_prompt(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """Where nobody can tell what its lines are."""
    with pytest.raises(ValueError, match=reason):
        read_file(tmp_path, "in.txt", content)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"prompt": "a"}, {"prompt": "b"}]\n',
        b'\n[{"prompt": "a"}]\n{"prompt": "b"}\n',
        b'[\n  {"prompt": "a"},\n  {"prompt": "b"}\n]\n',
        b'[{"prompt": "a"},\n{"prompt": "b"}]\n',
        b'{\n  "prompt": "a"\n}\n{\n  "prompt": "b"\n}\n',
        b'{"prompts": [\n{"prompt": "a"}\n]}',
        b'{"prompt":\n"a"}',
        b"[1]",
    ],
)
def test_json_that_is_not_an_object_a_line_is_refused_as_a_whole(tmp_path: Path, content: bytes) -> None:
    """Else some of its lines might be taken for prompts; the message says what makes lines of it."""
    words = r"in.jsonl: line [12]: it is JSON, but not one object on each line; .* \((1 line|\d lines)\): jq -c"
    with pytest.raises(ValueError, match=words):
        read_file(tmp_path, "in.jsonl", content)


@pytest.mark.parametrize(
    "line", [b'["a list"]', b'{"prompt": "torn,', b"[nonsense", b'{"prompt": "\xff"}', b'{"x": "\0"}']
)
def test_a_single_bad_line_is_no_fault_of_the_file(tmp_path: Path, line: bytes) -> None:
    """Not even the first one of JSON Lines."""
    bad, last = read_file(tmp_path, "in.jsonl", line + b'\n{"prompt": "b"}\n')
    assert isinstance(bad, BadLine)
    assert last == Prompt(2, "b")


def test_a_file_is_checked_again_when_it_has_changed(tmp_path: Path) -> None:
    """And not when it has not: once is enough."""
    path = Path(written(tmp_path, "in.csv", b"prompt\none\n"))
    with read(str(path)) as prompts:
        assert list(prompts) == list(prompts) == [Prompt(2, "one")]
        path.write_bytes(b'prompt\none\n"two')
        with pytest.raises(ValueError, match="line 3: a quote opens a cell here and none closes it"):
            list(prompts)


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.csv", "csv"), ("a.tsv", "csv"), ("a.txt", "text")],
)
def test_the_suffix_tells_the_format(tmp_path: Path, name: str, form: str) -> None:
    """In either case of its letters."""
    with read(written(tmp_path, name, b"")) as prompts:
        assert prompts.format == form


def test_a_format_wins_over_the_suffix(tmp_path: Path) -> None:
    """And without either there is nothing to go by."""
    path = written(tmp_path, "in.csv", b"one\n")
    with read(Path(path), "text") as prompts:
        assert list(prompts) == [Prompt(1, "one")]
    with pytest.raises(ValueError, match="a format is one of jsonl, csv, text, openai, not 'xml'"):
        read(path, "xml")
    with pytest.raises(ValueError, match="the suffix '.json' does not tell the format"):
        read(written(tmp_path, "in.json", b""))


def test_a_file_can_be_gone_through_again(tmp_path: Path) -> None:
    """Twice at once too, as for a check of its ids."""
    with read(written(tmp_path, "in.txt", b"one\ntwo\n")) as prompts:
        assert list(zip(prompts, prompts)) == [
            (Prompt(1, "one"), Prompt(1, "one")),
            (Prompt(2, "two"), Prompt(2, "two")),
        ]


def test_what_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    """Before anything else is done."""
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "in.txt"))
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))


def test_a_stream_is_kept_so_that_it_can_be_gone_through_again() -> None:
    """It is JSON Lines where nothing else is said, and nothing of it stays behind."""
    with read(io.BytesIO(b'{"prompt": "one"}\n')) as prompts:
        assert list(prompts) == list(prompts) == [Prompt(1, "one")]
    with read(io.BytesIO(b"one\n"), "text") as prompts:
        assert list(prompts) == [Prompt(1, "one")]
    with pytest.raises(ValueError, match="closed file"):
        list(prompts)


def test_a_stream_that_breaks_leaves_nothing_open() -> None:
    """The error is the stream's own; the interpreter would warn of a file that nobody closed."""

    class Broken(io.BytesIO):
        def read(self, size: Any = -1) -> bytes:
            raise OSError("the other end is gone")

    with pytest.raises(OSError, match="the other end is gone"):
        read(Broken())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_named_pipe_is_a_stream(tmp_path: Path) -> None:
    """As ``<(command)`` in a shell is."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb") as pipe:
            pipe.write(b'{"prompt": "one"}\n')

    writer = threading.Thread(target=write)
    writer.start()
    with read(path) as prompts:
        writer.join()
        assert list(prompts) == list(prompts) == [Prompt(1, "one")]


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.txt"])
def test_a_file_is_never_held_in_memory(tmp_path: Path, name: str) -> None:
    """Whatever its size: 8 MB are read with less than a tenth of that."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has none")
    line = {"in.jsonl": b'{"prompt": "%s"}\n', "in.csv": b"%s\n", "in.txt": b"%s\n"}[name]
    head = b"prompt\n" if name == "in.csv" else b""
    path = written(tmp_path, name, head + line % (b"word " * 800) * 2_000)
    tracemalloc.start()
    try:
        with read(path) as prompts:
            count = sum(1 for _ in prompts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2_000
    assert peak < 800_000


def test_a_value_is_read_as_a_line_is() -> None:
    """A text, a dictionary, a ``Prompt``; its place is its id where it has none."""
    messages = [{"role": "user", "content": "hi"}]
    assert read_prompt("hi", 4) == Prompt(4, "hi")
    assert read_prompt({"id": "a", "messages": messages}, 4) == Prompt("a", messages)
    assert read_prompt({"prompt": "hi"}, 4) == Prompt(4, "hi")
    prompt = Prompt("a", "hi", system="x")
    assert read_prompt(prompt, 4) is prompt
    bad = BadLine(1, 1, "why")
    assert read_prompt(bad, 4) is bad


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "prompt 4: the prompt is empty"),
        (5, "prompt 4 must be a string, a dictionary or a Prompt, not int"),
        ({"text": "hi"}, "prompt 4: a prompt has either prompt or messages, and this one has neither"),
        (Prompt(None, "hi"), "prompt 4: id must be a string or a whole number, not NoneType"),
        (Prompt(4, b"hi"), "prompt 4: a prompt must be a string or a list of messages, not bytes"),
        (Prompt(4, {"role": "user"}), "prompt 4: a prompt must be a string or a list of messages, not dict"),
    ],
)
def test_a_bad_value_is_told_with_its_place(value: Any, reason: str) -> None:
    """It fails alone, as a bad line does."""
    assert read_prompt(value, 4) == BadLine(4, 4, reason)


MESSAGES = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.mark.parametrize(
    ("prompt", "system", "content"),
    [
        (Prompt(1, " hi\n"), None, " hi\n"),
        (Prompt(1, "hi"), "be brief", "System: be brief\nUser: hi\nAssistant:"),
        (Prompt(1, "hi", system="be nice"), "be brief", "System: be nice\nUser: hi\nAssistant:"),
        (Prompt(1, MESSAGES), None, "User: one\nAssistant: two\nUser: three\nAssistant:"),
        (Prompt(1, MESSAGES[:1]), None, "one"),
        (Prompt(1, MESSAGES[:1]), "be brief", "System: be brief\nUser: one\nAssistant:"),
        (Prompt(1, " hi\n", conversation="t"), None, " hi\n"),
        (Prompt(1, "hi", conversation="t"), "be brief", "be brief\n\nhi"),
        (Prompt(1, MESSAGES, conversation=Conversation("t")), None, "three"),
        (Prompt(1, "hi", conversation=""), None, "hi"),
    ],
)
def test_what_is_sent_of_a_prompt(prompt: Prompt, system: Any, content: str) -> None:
    """One text: a transcript in a new conversation, what the user said last in one that goes on."""
    assert prompt.content(system) == content


def test_a_prompt_is_checked_once() -> None:
    """When it is read; what is sent with instructions later is made of what was read then."""
    reads: List[str] = []

    class Counted(Dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            reads.append(key)
            return super().get(key, default)

    prompt = read_prompt({"messages": [Counted(message) for message in MESSAGES]}, 1)
    assert isinstance(prompt, Prompt)
    assert reads == ["role", "role", "role"]
    assert prompt.content("be brief") == "System: be brief\nUser: one\nAssistant: two\nUser: three\nAssistant:"
    assert reads == ["role", "role", "role"]
