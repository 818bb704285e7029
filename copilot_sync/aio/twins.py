"""Methods of the asynchronous face have the parameters of their blocking twins, and their documentation.

Both are taken from the twin, so that they can't differ: type checkers, ``inspect.signature`` and ``help`` show them.
"""

import inspect
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Optional, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")
R = TypeVar("R")

#: Where the part of a docstring begins that is about parameters, results and errors.
_SECTIONS = ("Args:", "Returns:", "Raises:")


def twin_of(
    blocking: "Callable[Concatenate[Any, P], Any]",
) -> "Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]":
    """Give a method the parameters of a blocking one, and add the sections of its docstring to its own.

    The method itself takes any parameters. It is not wrapped, so no frame more holds what it is passed.
    """

    def decorate(method: "Callable[..., R]") -> "Callable[Concatenate[Any, P], R]":
        own = method.__annotations__.get("return", inspect.Signature.empty)
        method.__doc__ = with_sections_of(blocking, method.__doc__)
        method.__signature__ = inspect.signature(blocking).replace(return_annotation=own)  # type: ignore[attr-defined]
        return method

    return decorate


def with_sections_of(documented: Any, own: Optional[str]) -> str:
    """Return a docstring with the sections on parameters, results and errors of another one added."""
    lines = inspect.cleandoc(documented.__doc__ or "").splitlines()
    first = next((number for number, line in enumerate(lines) if line in _SECTIONS), len(lines))
    return "\n\n".join(filter(None, (inspect.cleandoc(own or ""), "\n".join(lines[first:]))))


def awaitable(
    blocking: "Callable[Concatenate[Any, P], T]",
    run: "Callable[[Any, Callable[[Any], T]], Coroutine[Any, Any, T]]",
) -> "Callable[Concatenate[Any, P], Coroutine[object, None, T]]":
    """Return a coroutine method that has a blocking one run elsewhere.

    Its type has no ``Any``, with which mypy can't tell what ``asyncio.gather`` returns for two methods.

    Args:
        blocking: The method. The new one has its name, its parameters and its documentation.
        run: Called with the object, and with a function that takes what the blocking method is called on.
    """

    async def method(self: Any, /, *args: Any, **kwargs: Any) -> T:
        return await run(self, lambda target: blocking(target, *args, **kwargs))

    for name in ("__name__", "__doc__", "__annotations__"):
        setattr(method, name, getattr(blocking, name))
    method.__signature__ = inspect.signature(blocking)  # type: ignore[attr-defined]
    return method
