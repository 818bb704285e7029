"""Values that must not be seen, and how they are held.

A report of an error may show the variables of each frame that the error came through, and a log may show a value by
accident. So an argument that may be a secret becomes a ``Secret`` on the first line it reaches. ``MaskedText`` is the
same for libraries that need the text itself.
"""

from typing import Any, Generic, Tuple, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """A token, cookies, or whatever may hold some. It shows itself as ``***`` however it is printed.

    It pickles with what is inside, because a client that is sent to another process has to work there.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    @classmethod
    def coerce(cls, value: Any) -> "Secret[Any]":
        """Make a secret of any value; one that is a secret stays the same."""
        return value if isinstance(value, Secret) else cls(value)

    def reveal(self) -> T:
        """Return the value itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return bool(self._value == other._value) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)


class MaskedText(str):
    """A text with a secret in it, for libraries that want a text: it is sent as it is, and shown as ``***``.

    Reports of errors show variables by their ``repr``, those of foreign frames as well. Any method but ``encode``
    returns an ordinary text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        """Encode it, as ``str`` does; the bytes are masked too."""
        return MaskedBytes(super().encode(*args, **kwargs))

    def __reduce_ex__(self, protocol: Any) -> Tuple[Any, ...]:
        return str, (str(self),)  # who stores it, such as a recorder of requests, gets an ordinary text back


class MaskedBytes(bytes):
    """What ``MaskedText`` becomes on its way to the wire."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"
