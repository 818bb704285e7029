"""Files that a message carries with it: their names and texts, read before anything is sent.

A file goes out as a reference that holds its whole text (public captures, 2026). ``text_files`` decides what is text.
Only ``read_files`` opens anything, so a path is read only if a caller passes one: prompts that come out of files and
queues are checked by ``inline_files``, which takes texts alone.
"""

import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from copilot_sync.safe_text import check_text, well_formed
from copilot_sync.text_files import HAS_NULS, PathLike, decoded

#: Bytes of one file, as UTF-8. No model reads more than a few hundred thousand characters at once.
FILE_LIMIT = 1024 * 1024
TOO_LARGE = f"it is larger than {FILE_LIMIT // 1024} KiB"
#: Characters of a name that an error repeats: it may be data, and megabytes long.
_SHOWN = 200

#: The name of a file and its text.
NamedText = Tuple[str, str]
#: A file to attach: its path, or its name and text.
FileInput = Union[str, PathLike, NamedText]


def read_files(files: Optional[Iterable[FileInput]]) -> List[NamedText]:
    """Read the files that are given by their paths, and return all of them with their names.

    The name of a file that is read is its path within the current folder. Of a file elsewhere, it is the last part
    of the path, so that nobody learns where on this machine the file is.

    Args:
        files: Paths, and pairs of a name and a text; ``None`` for none.

    Raises:
        TypeError: It is no list, or it holds something else.
        ValueError: A file is too large or is not text. The message begins with its path, or its name if it has none.
        OSError: A file can't be read.
    """
    return [_read(file) if isinstance(file, (str, os.PathLike)) else _pair(file) for file in _listed(files)]


def inline_files(pairs: Optional[Iterable[NamedText]]) -> Tuple[Mapping[str, Any], ...]:
    """Return the references that carry files inline, out of their names and texts.

    Args:
        pairs: Pairs of a name and a text; ``None`` for none.

    Raises:
        TypeError: It is no list, or it holds something else, such as a path.
        ValueError: A file has no name, is too large or is not text.
    """
    return tuple(_reference(*_pair(pair)) for pair in _listed(pairs))


def _listed(files: Optional[Iterable[Any]]) -> Iterable[Any]:
    if files is None:
        return ()
    if isinstance(files, (str, bytes, os.PathLike, Mapping)) or not isinstance(files, Iterable):
        raise TypeError(f"files must be a list, not {type(files).__name__}")
    return files


def _pair(value: object) -> NamedText:
    if isinstance(value, (str, os.PathLike)):
        raise TypeError("a file must be a pair of its name and its text here: no path is opened")
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"a file must be a path, or a pair of its name and its text, not {type(value).__name__}")
    if len(value) != 2 or not all(isinstance(each, str) for each in value):
        raise TypeError("a file that is no path must be a pair of two strings: its name and its text")
    return value[0], value[1]


def _read(path: Union[str, PathLike]) -> NamedText:
    name = os.fsdecode(path)
    if "\0" in name:
        raise ValueError("a path holds a NUL character")
    with open(name, "rb") as file:
        content = file.read(FILE_LIMIT + 1)
    try:
        return _shown_name(name), text_of_file(content)
    except ValueError as error:
        raise ValueError(f"{well_formed(name)}: {error}") from None


def text_of_file(content: bytes) -> str:
    """Decode a file.

    Raises:
        ValueError: It is too large or is not text; the message says what to do.
    """
    if len(content) > FILE_LIMIT:
        raise ValueError(TOO_LARGE)
    return decoded(content)


def _shown_name(path: str) -> str:
    relative = os.path.normpath(path)
    if os.path.isabs(relative) or relative.startswith(os.pardir):
        relative = os.path.basename(relative)
    return well_formed(relative.replace(os.sep, "/"))


def _reference(name: str, text: str) -> Dict[str, str]:
    if not name.strip():
        raise ValueError("a file must have a name")
    check_text("the name of a file", name)
    shown = name[:_SHOWN]
    if len(check_text(shown, text).encode("utf-8")) > FILE_LIMIT:
        raise ValueError(f"{shown}: {TOO_LARGE}")
    if "\0" in text:
        raise ValueError(f"{shown}: {HAS_NULS}")
    return {"type": "thread-scoped-file", "name": name, "text": text, "language": os.path.splitext(name)[1][1:]}
