"""The content of a role message, which may be a list of parts, as OpenAI's two chat APIs shape them.

====================================  ================================================================
part                                  what is sent
====================================  ================================================================
a string; ``text``, ``input_text``,   text
``output_text``
``image_url``, ``input_image``        an entry of ``mediaContent``, if the image has an ``https://`` address
``file``, ``input_file``              an inline file, if the part holds the file and the file is text
anything else                         nothing: it is refused, and the error says what can be sent
====================================  ================================================================

No part is left out in silence. Nothing here touches the network or a file. The errors never repeat an address or a
text, because either may be megabytes long.
"""

import base64
import binascii
import posixpath
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import unquote, urlsplit

from copilot_sync.inline_files import FILE_LIMIT, TOO_LARGE, inline_files, text_of_file

#: What an image is by the extension in its address, and if there is none.
_IMAGES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".gif": "gif", ".webp": "webp", "": "jpeg"}
_SENDABLE = "only text, text files, and JPEG, PNG, GIF and WEBP images with an https:// address can be sent"
#: Characters of what a caller named that an error repeats.
_SHOWN = 40


class Attachments(NamedTuple):
    """What goes with a text: files and whatever else ``references`` takes, and images, as the wire has them."""

    references: Tuple[Mapping[str, Any], ...] = ()
    media: Tuple[Mapping[str, Any], ...] = ()

    def plus(self, other: "Attachments") -> "Attachments":
        """Return both together."""
        return Attachments(self.references + other.references, self.media + other.media)


NO_ATTACHMENTS = Attachments()


def read_content(number: int, content: object) -> Tuple[str, Attachments]:
    """Read the content of a message: a string, a list of parts, or ``None``, which is blank.

    Args:
        number: The message's place among the others, for errors.
        content: The content.

    Raises:
        TypeError: It, or one of its parts, has the wrong type.
        ValueError: A part can't be sent.
    """
    if content is None:  # as in an assistant's turn that only called a tool
        return "", NO_ATTACHMENTS
    if isinstance(content, str):
        return content, NO_ATTACHMENTS
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"the content of message {number} must be a string or a list of parts")
    reader = _PartReader(number)
    for part in content:
        reader.read(part)
    return reader.result()


class _PartReader:
    """Reads the parts of one message, one after the other."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._texts: List[str] = []
        self._references: List[Mapping[str, Any]] = []
        self._media: List[Mapping[str, Any]] = []

    def result(self) -> Tuple[str, Attachments]:
        """Return the text and the attachments of all parts."""
        if not self._references and not self._media:
            return "".join(self._texts), NO_ATTACHMENTS
        return "".join(self._texts), Attachments(tuple(self._references), tuple(self._media))

    def read(self, part: object) -> None:
        """Read a part.

        Raises:
            TypeError: It has the wrong type.
            ValueError: It can't be sent.
        """
        if isinstance(part, str):
            self._texts.append(part)
            return
        if not isinstance(part, Mapping):
            raise TypeError(f"a part of message {self._number} must be a dictionary, not {type(part).__name__}")
        kind = part.get("type") or ("text" if "text" in part else None)
        if kind in ("text", "input_text", "output_text"):
            self._texts.append(self._string(part.get("text", ""), "the text of a part"))
        elif kind == "image_url" or kind == "input_image":
            self._media.append(self._image(part))
        elif kind == "file" or kind == "input_file":
            self._references.append(self._file(part["file"] if kind == "file" and "file" in part else part))
        else:
            what = f"of type {kind[:_SHOWN]!r}" if kind and isinstance(kind, str) else "without a type or text"
            raise self._refusal(f"a part {what}")

    def _image(self, part: Mapping[str, Any]) -> Dict[str, str]:
        image = part.get("image_url")
        if isinstance(image, Mapping):
            image = image.get("url")
        if image is None:
            raise self._refusal("an image", "it has no address in image_url")
        url = self._string(image, "the address of an image")
        path = _path_of_https(url)
        if path is None:
            raise self._refusal("an image", _fault_of(url))
        name = posixpath.basename(path)
        extension = posixpath.splitext(name)[1].lower()
        if extension not in _IMAGES:
            words = f"its address ends in {extension[:_SHOWN]!r}; media= takes images whose type you know"
            raise self._refusal("an image", words)
        return {"mediaType": f"image/{_IMAGES[extension]}", "name": name or "image", "url": url}

    def _file(self, file: object) -> Mapping[str, Any]:
        if not isinstance(file, Mapping):
            raise TypeError(f"the file of a part of message {self._number} must be a dictionary")
        data = file.get("file_data")
        if data is None:
            raise self._refusal("a file", "the part does not hold it in file_data")
        name = self._string(file.get("filename"), "the filename of a file")
        try:
            text = text_of_file(_bytes_of(self._string(data, "the file_data of a file")))
            (reference,) = inline_files([(name, text)])
        except ValueError as error:
            raise self._refusal(f"the file {name[:_SHOWN]!r}", str(error)[-200:]) from None
        return reference

    def _string(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{what} in message {self._number} must be a string, not {type(value).__name__}")
        return value

    def _refusal(self, what: str, reason: str = "") -> ValueError:
        because = f" ({reason})" if reason else ""
        return ValueError(f"message {self._number} has {what}, which can't be sent{because}: {_SENDABLE}")


def _path_of_https(url: str) -> Optional[str]:
    """Return the path in an ``https://`` address; ``None`` if it is no such address."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme == "https" and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return None
    return unquote(parts.path) if is_address else None


def _fault_of(url: str) -> str:
    scheme, colon, _ = url[:_SHOWN].partition(":")
    return f"its address begins with {scheme}:" if colon and scheme.lower() != "https" else "its address is not valid"


def _bytes_of(data: str) -> bytes:
    """Return the content of a ``data:`` address in base64.

    Raises:
        ValueError: It is none, or it is too large.
    """
    head, comma, encoded = data.partition(",")
    if not comma or not head.lower().startswith("data:") or not head.lower().endswith(";base64"):
        raise ValueError("its file_data is not data:…;base64,…")
    if len(encoded) > 2 * FILE_LIMIT:  # before as much again is held in memory
        raise ValueError(TOO_LARGE)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its file_data is not valid base64") from None
