"""Forms with a file, as ``multipart/form-data`` has them. They are read piece by piece; nothing of a file is held.

The package ``multipart`` reads them, which the extra ``serve`` brings.
"""

from typing import IO, Any, Dict, Mapping, NamedTuple, Optional

from copilot_sync.contrib.openai_gateway.request_body import pieces_of
from copilot_sync.openai_api.failures import ApiError, not_configured

#: Fields of a form, and bytes of each but the file.
_MOST_FIELDS, _LONGEST_FIELD = 16, 1024
#: Characters of a file's name.
_LONGEST_NAME = 255


class Upload(NamedTuple):
    """A form whose file was written.

    Attributes:
        filename: What the client calls the file.
        fields: The other fields.
    """

    filename: str
    fields: Mapping[str, str]


def read_upload(environ: Mapping[str, Any], file: IO[bytes]) -> Upload:
    """Read the form of a request, and write its field ``file`` to a file.

    Raises:
        ApiError: There is no such form (400), it is too large (413), or nothing here reads it (501).
        OSError: The file can't be written.
    """
    multipart = _library()
    kind, options = multipart.parse_options_header(environ.get("CONTENT_TYPE") or "")
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise ApiError(400, "the body must be multipart/form-data", code="invalid_content_type")
    form = _UploadReader(file)
    try:
        parser = multipart.PushMultipartParser(options["boundary"], max_segment_count=_MOST_FIELDS)
        with parser:
            for piece in pieces_of(environ):
                for part in parser.parse(piece):
                    form.take(part)
    except multipart.MultipartError as error:
        raise ApiError(400, f"the form can't be read: {error}", code="invalid_form") from None
    return form.upload()


def _library() -> Any:
    try:
        import multipart

        multipart.PushMultipartParser  # noqa: B018 - another package has the same name and no such class
    except (ImportError, AttributeError):
        raise not_configured("uploads need the package multipart: pip install 'copilot-sync[serve]'") from None
    return multipart


class _UploadReader:
    """What has come of a form.

    Args:
        file: Where the field ``file`` goes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._filename: Optional[str] = None
        self._fields: Dict[str, bytes] = {}
        self._name = ""  # of the field under way

    def take(self, part: Any) -> None:
        """Take what the parser has found: the head of a field, bytes of it, or ``None`` for its end."""
        if isinstance(part, (bytes, bytearray)):
            self._add(bytes(part))
        elif part is not None:
            self._begin(part)

    def _begin(self, head: Any) -> None:
        self._name = str(head.name)
        if self._name in self._fields or (self._name == "file" and self._filename is not None):
            raise ApiError(400, "a field of the form came twice", code="invalid_form")
        if self._name == "file":
            self._filename = (head.filename or "upload")[:_LONGEST_NAME]
        else:
            self._fields[self._name] = b""

    def _add(self, data: bytes) -> None:
        if self._name == "file":
            self._file.write(data)
            return
        self._fields[self._name] += data
        if len(self._fields[self._name]) > _LONGEST_FIELD:
            raise ApiError(400, f"a field has more than {_LONGEST_FIELD} bytes", code="invalid_form")

    def upload(self) -> Upload:
        """Return the whole form.

        Raises:
            ApiError: It has no file.
        """
        if self._filename is None:
            raise ApiError(400, "the form has no field file", code="missing_required_parameter", param="file")
        fields = {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}
        return Upload(self._filename, fields)
