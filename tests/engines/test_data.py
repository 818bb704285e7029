"""Results of batches in pandas, polars, DuckDB and jq: nothing is lost that comes late, and text stays text."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import duckdb
import pandas
import polars
import pytest
from blocks import DOCS, text_with

from copilot_sync import Client, batch
from copilot_sync.batch.dataframes import COLUMNS
from copilot_sync.batch.results import Result
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.usage import Usage

#: More lines than DuckDB looks at.
MANY = 20_500
FAILURE = {"type": "InvalidRequestError", "message": "no", "stage": "message", "status": 400}
ANSWERS = [Result(f"{number:05}", "7", "m", Usage(3, None), f"t-{number}", 1.5, 1) for number in range(3)]
LATE = [
    Result("007", "half", error=FAILURE),
    Result("1e5", "2026-01-01", error={**FAILURE, "status": None, "code": "missing", "param": None}),
    Result(9, "1.0", "m", Usage(None, 4), "t-9", 0.0, 2, cached=True),
]
LIBRARIES = pytest.mark.parametrize("library", ["pandas", "polars"])


def write(path: Path, results: List[Any]) -> Path:
    lines = [each.to_dict() if isinstance(each, Result) else each for each in results]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output in which failures, structured answers and odd ids come after many lines without any."""
    monkeypatch.chdir(tmp_path)
    parsed = [
        {**LATE[2].to_dict(), "id": f"p{number}", "parsed": value} for number, value in enumerate([{"a": 1}, [1]])
    ]
    return write(tmp_path / "results.jsonl", [ANSWERS[0]] * MANY + LATE + parsed)


def rows_of(frame: Any) -> List[Dict[str, Any]]:
    """The rows of either library, nothing being ``None``."""
    if isinstance(frame, polars.DataFrame):
        return frame.to_dicts()
    return [
        {name: None if value is pandas.NA else value for name, value in row.items()} for row in frame.to_dict("records")
    ]


def types_of(frame: Any) -> List[str]:
    return [str(kind) for kind in (frame.dtypes if isinstance(frame, pandas.DataFrame) else frame.schema.values())]


@LIBRARIES
def test_the_types_do_not_depend_on_the_rows(library: str, late: Path) -> None:
    """Not if there are none, not if all failed, and not if something comes late."""
    place = ["pandas", "polars"].index(library)
    expected = [kinds[place] for kinds in COLUMNS.values()]
    for results in ([], ANSWERS, LATE[:1], late):
        frame = batch.to_dataframe(results, library)
        assert list(frame.columns) == list(COLUMNS)
        assert types_of(frame) == expected


@LIBRARIES
def test_a_row_has_all_of_a_result(library: str) -> None:
    """Ids and texts as they are, and nothing where there is nothing."""
    rows = rows_of(batch.to_dataframe([ANSWERS[1], *LATE], library))
    assert [row["id"] for row in rows] == ["00001", "007", "1e5", "9"]
    assert [row["text"] for row in rows] == ["7", "half", "2026-01-01", "1.0"]
    assert rows[0] == {
        "id": "00001",
        "text": "7",
        "parsed": None,
        "model": "m",
        "input_tokens": 3,
        "output_tokens": None,
        "conversation_id": "t-1",
        "complete": True,
        "seconds": 1.5,
        "attempts": 1,
        "cached": False,
        "error_type": None,
        "error_message": None,
        "error_stage": None,
        "error_status": None,
    }
    errors = [[row[f"error_{name}"] for name in FAILURE] for row in rows[1:]]
    assert errors == [[*FAILURE.values()], ["InvalidRequestError", "no", "message", None], [None] * 4]
    assert [row["complete"] for row in rows] == [True, False, False, True]
    assert [row["cached"] for row in rows] == [False, False, False, True]


@LIBRARIES
def test_a_structured_answer_stays_what_it_is(library: str, late: Path) -> None:
    """An object or a list of Python."""
    assert [row["parsed"] for row in rows_of(batch.to_dataframe(late, library))[-3:]] == [None, {"a": 1}, [1]]


@LIBRARIES
def test_half_a_pair_of_surrogates_does_no_harm(library: str) -> None:
    """The service may send one, and no table can hold it."""
    (row,) = rows_of(batch.to_dataframe([Result("a", "x\ud83d")], library))
    assert row["text"] == "x\N{REPLACEMENT CHARACTER}"


@LIBRARIES
def test_a_batch_becomes_a_table(emulator: Emulator, library: str, tmp_path: Path) -> None:
    """Its results, and its output, which may have a torn end."""
    prompts = [{"id": "007", "prompt": "one"}, {"id": "x", "prompt": "two"}, {"id": "y", "prompt": ""}]
    output = tmp_path / "out.jsonl"
    with Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None
    ) as client:
        emulator.fail("message", Fault.status(400))
        run = batch.run(prompts, client=client, output=output, workers=1, ordered=True)
        rows = rows_of(batch.to_dataframe(run, library))
    assert [(row["id"], row["text"], row["error_type"]) for row in rows] == [
        ("007", None, "InvalidRequestError"),
        ("x", "two", None),
        ("y", None, "BadLineError"),
    ]
    with output.open("ab") as file:
        file.write(b'{"id": "z", "te')
    again = rows_of(batch.to_dataframe(str(output), library))
    assert [{**row, "seconds": None} for row in again] == [{**row, "seconds": None} for row in rows]


def test_lines_of_earlier_versions_are_results(tmp_path: Path) -> None:
    """They lack some keys. A byte order mark and blank lines are nothing special."""
    line = {key: value for key, value in ANSWERS[0].to_dict().items() if key not in ("parsed", "complete", "cached")}
    path = tmp_path / "old.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(line).encode() + b"\r\n\r\n")
    (row,) = rows_of(batch.to_dataframe(path))
    assert (row["id"], row["parsed"], row["complete"], row["cached"]) == ("00000", None, True, False)


@pytest.mark.parametrize(
    "content", ['{"a": 1}\n', '{"id": "z", "te\n', "id,text\n", '{"custom_id": "a", "response": null}\n']
)
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    """With the line that is no result."""
    path = write(tmp_path / "out.jsonl", ANSWERS[:1])
    path.write_text(path.read_text() + content)
    with pytest.raises(ValueError, match=r"line 2 of .*out\.jsonl is no result of a batch"):
        batch.to_dataframe(path)


def test_the_library_that_is_there_is_used() -> None:
    """pandas first; another one than these is a mistake."""
    assert isinstance(batch.to_dataframe([]), pandas.DataFrame)
    with pytest.raises(ValueError, match="library must be 'pandas' or 'polars', not 'duckdb'"):
        batch.to_dataframe([], "duckdb")


@pytest.mark.parametrize(
    "absent, library, expected",
    [
        (["pandas"], None, "<class 'polars.dataframe.frame.DataFrame'>"),
        (["pandas", "polars"], None, 'needs pandas or polars: pip install "copilot-sync[data]"'),
        (["polars"], "polars", 'needs polars: pip install "polars"'),
    ],
    ids=["polars alone", "none", "not the one that is asked for"],
)
def test_what_is_missing_is_named(absent: List[str], library: Any, expected: str, tmp_path: Path) -> None:
    """If it is installed, but can't be imported, that is told instead."""
    hide = "import sys; sys.meta_path.insert(0, type('Hide', (), dict(find_spec=staticmethod(find)))())"
    code = (
        "def find(name, *_):\n"
        f"    if name in {absent!r}: raise ModuleNotFoundError(name, name=name)\n"
        f"{hide}\nfrom copilot_sync import batch\nprint(type(batch.to_dataframe([], {library!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.stdout.decode().splitlines()[-1].endswith(expected)


def test_a_library_that_is_broken_says_so_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another one would hide that."""
    tmp_path.joinpath("pandas.py").write_text("import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pandas")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        batch.to_dataframe([])


def run_block(word: str) -> Dict[str, Any]:
    names: Dict[str, Any] = {}
    exec(text_with(word, DOCS / "data.rst", "python"), names)
    return names


def check(rows: List[Dict[str, Any]]) -> None:
    """Everything late is there."""
    assert len(rows) == MANY + 5
    late = rows[-5:]
    assert [row["id"] for row in late[:2]] == ["007", "1e5"]
    assert [row["text"] for row in late[:3]] == ["half", "2026-01-01", "1.0"]
    for row in late[:2]:
        assert (row["error"]["type"], row["error"]["message"]) == ("InvalidRequestError", "no")
    assert late[0]["error"]["status"] == 400
    assert late[2]["usage"] == {"input_tokens": None, "output_tokens": 4}
    assert late[2]["cached"] is True


def test_the_page_reads_with_the_library_of_choice(late: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its first block, as it stands."""
    assert len(run_block("from copilot_sync import batch")["frame"]) == MANY + 5
    assert "InvalidRequestError" in capsys.readouterr().out


def test_the_page_reads_with_pandas(late: Path) -> None:
    """Without the option, ids become numbers."""
    check(run_block("import pandas")["frame"].to_dict("records"))
    write(late, [Result("007", "7"), Result("1e5", "8")])
    assert [str(value) for value in pandas.read_json(late, lines=True).id] == ["7.0", "100000.0"]


def test_the_page_reads_with_polars(late: Path) -> None:
    """Without a schema, a failure after 100 lines ends the reading, and a late column is lost."""
    rows = run_block("import polars")["frame"].to_dicts()
    check(rows)
    assert [row["parsed"] for row in rows[-2:]] == ['{"a": 1}', "[1]"]
    with pytest.raises(polars.exceptions.ComputeError):
        polars.read_ndjson(late)
    with pytest.raises(polars.exceptions.PolarsError):
        polars.read_ndjson(late, infer_schema_length=None)
    for count, columns in ((99, ["id", "late"]), (100, ["id"])):
        write(late, [{"id": "a"}] * count + [{"id": "b", "late": 1}])
        assert polars.read_ndjson(late).columns == columns


def test_the_page_reads_with_duckdb(late: Path) -> None:
    """Without the types, a failure after 20,480 lines is no failure, and a late column is lost or an error."""
    table = run_block("import duckdb")["table"]
    rows = [dict(zip(table.columns, row)) for row in table.fetchall()]
    check(rows)
    assert [json.loads(row["parsed"]) for row in rows[-2:]] == [{"a": 1}, [1]]
    counted = "SELECT count(*) FROM read_json('results.jsonl'{}) WHERE error IS NOT NULL"
    ((found,),) = duckdb.sql(counted.format("")).fetchall()
    ((sampled,),) = duckdb.sql(counted.format(", sample_size = -1")).fetchall()
    assert (found, sampled) == (0, 2)
    ids = duckdb.sql("SELECT id FROM read_json('results.jsonl', sample_size = -1)").fetchall()
    assert ids[MANY] == ('"007"',)
    lines = [{"id": "a", "error": None}] * MANY + [{"id": "b", "error": None, "late": 1}]
    write(late, lines)
    assert duckdb.sql("SELECT * FROM read_json('results.jsonl')").columns == ["id", "error"]
    assert len(duckdb.sql("SELECT * FROM read_json('results.jsonl')").fetchall()) == MANY + 1
    write(late, [{**line, "error": "no"} for line in lines])
    with pytest.raises(duckdb.InvalidInputException):
        duckdb.sql("SELECT * FROM read_json('results.jsonl')").fetchall()


def test_the_page_reads_with_jq(late: Path) -> None:
    """Both commands, one after the other."""
    commands = text_with("jq -r", DOCS / "data.rst", "sh").splitlines()
    failures, answers = (
        subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
        for command in commands
    )
    assert failures == ["007\tInvalidRequestError\tno", "1e5\tInvalidRequestError\tno"]
    assert (len(answers), answers[-3]) == (MANY + 3, '9,"1.0"')
