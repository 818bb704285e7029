"""Results of a batch as a table of pandas or polars.

Readers of JSON Lines guess the type of a column, and differ in their guesses. Here the columns and their types are
always the same, whatever the rows hold: see ``docs/data.rst``.
"""

import importlib
import os
from typing import Any, Iterable, Iterator, Mapping, Optional, Union

from copilot_sync.batch.line_formats import OUTPUT
from copilot_sync.batch.results import Result
from copilot_sync.safe_text import well_formed
from copilot_sync.text_files import PathLike

Fields = Mapping[str, Any]
Results = Union[str, PathLike, Iterable[Union[Result, Fields]]]

#: The types by their names in pandas and in polars.
_TEXT = ("string", "String")
_NUMBER = ("Int64", "Int64")
_SECONDS = ("Float64", "Float64")
_YES_OR_NO = ("boolean", "Boolean")
_ANYTHING = ("object", "Object")
#: The columns in their order, each with its types.
COLUMNS = {
    "id": _TEXT,
    "text": _TEXT,
    "parsed": _ANYTHING,
    "model": _TEXT,
    "input_tokens": _NUMBER,
    "output_tokens": _NUMBER,
    "conversation_id": _TEXT,
    "complete": _YES_OR_NO,
    "seconds": _SECONDS,
    "attempts": _NUMBER,
    "error_type": _TEXT,
    "error_message": _TEXT,
    "error_stage": _TEXT,
    "error_status": _NUMBER,
    "cached": _YES_OR_NO,
}


def to_dataframe(results: Results, library: Optional[str] = None) -> Any:
    """Return the results of a batch as a data frame, one row for each.

    >>> frame = to_dataframe("results.jsonl")  # doctest: +SKIP
    >>> frame[frame.error_type.notna()]  # doctest: +SKIP

    The columns and their types do not depend on the rows. ``usage`` becomes ``input_tokens`` and ``output_tokens``, and
    ``error`` becomes ``error_type``, ``error_message``, ``error_stage`` and ``error_status``. Ids are text.

    Args:
        results: The output of a batch, or its results: a ``Run``, or any iterable of ``Result`` values or of the
            objects of an output's lines.
        library: ``"pandas"`` or ``"polars"``. Default: the one that is installed, and pandas if both are.

    Returns:
        A ``pandas.DataFrame`` or a ``polars.DataFrame``.

    Raises:
        ImportError: The library is not installed.
        ValueError: The file has a line that is no result, or ``library`` is another name.
        OSError: The file can't be read.
    """
    made_by = _import(library)
    rows = [_row(each.to_dict() if isinstance(each, Result) else each) for each in _each(results)]
    columns = {name: [_storable(row[name]) for row in rows] for name in COLUMNS}
    if made_by.__name__ == "polars":
        types = {name: getattr(made_by, kind) for name, (_, kind) in COLUMNS.items()}
        return made_by.DataFrame(columns, schema=types)
    return made_by.DataFrame({name: made_by.Series(columns[name], dtype=kind) for name, (kind, _) in COLUMNS.items()})


def _import(library: Optional[str]) -> Any:
    if library not in (None, "pandas", "polars"):
        raise ValueError(f"library must be 'pandas' or 'polars', not {library!r}")
    for name in ("pandas", "polars") if library is None else (library,):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    needed = "pandas" if library is None else library
    extra = "copilot-sync[data]" if needed == "pandas" else needed
    raise ImportError(f'to_dataframe needs {library or "pandas or polars"}: pip install "{extra}"', name=needed)


def _each(results: Results) -> Iterator[Union[Result, Fields]]:
    if not isinstance(results, (str, os.PathLike)):
        yield from results
        return
    with open(results, "rb") as file:
        for number, line in enumerate(file, 1):
            content = line.strip() if number > 1 else line.lstrip(b"\xef\xbb\xbf").strip()
            fields = OUTPUT.parse(content)
            if fields is not None:
                yield fields
            elif content and not (OUTPUT.may_be_torn(content) and not line.endswith(b"\n")):
                raise ValueError(f"line {number} of {os.fspath(results)} is no result of a batch")


def _storable(value: Any) -> Any:
    return well_formed(value) if isinstance(value, str) else value


def _row(fields: Fields) -> Fields:
    """Return the values of a row. Lines of earlier versions lack some keys."""
    usage, error = fields.get("usage") or {}, fields.get("error") or {}
    return {
        **dict.fromkeys(COLUMNS),
        **{name: fields[name] for name in COLUMNS if name in fields},
        "id": str(fields["id"]),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "complete": not error,
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "error_stage": error.get("stage"),
        "error_status": error.get("status"),
        "cached": bool(fields.get("cached")),
    }
