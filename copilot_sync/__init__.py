"""A blocking client of GitHub Copilot Chat, and the documented ``GithubCopilot`` module on top of it.

>>> import copilot_sync
>>> with copilot_sync.Client() as client:  # doctest: +SKIP
...     print(client.ask("Explain WSGI in one line"))

Importing the package loads next to nothing: neither the command line nor the emulator nor ``pytest``, which all pass
through here, wait for ``requests``. What it offers is loaded when the first name of it is asked for.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, List

#: What is loaded by its own module, because it needs asyncio, and that module's name.
_ASYNC = {"AsyncChat": "aio.chat", "AsyncClient": "aio.client", "AsyncStream": "aio.stream"}

if TYPE_CHECKING:
    from copilot_sync import aio as aio
    from copilot_sync import batch as batch
    from copilot_sync import emulator as emulator
    from copilot_sync import testing as testing
    from copilot_sync._public import *
    from copilot_sync.aio.chat import AsyncChat as AsyncChat
    from copilot_sync.aio.client import AsyncClient as AsyncClient
    from copilot_sync.aio.stream import AsyncStream as AsyncStream
else:  # so that a name that is misspelt is told by whoever checks types

    def __getattr__(name: str) -> object:
        """Load what is offered, or a module of the package, when it is first used."""
        module = f"{__name__}.{name}"
        if not name.startswith("_") and importlib.util.find_spec(module) is not None:
            return importlib.import_module(module)
        public = importlib.import_module(f"{__name__}.{_ASYNC.get(name, '_public')}")
        if not hasattr(public, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(public, name)
        globals()[name] = value = sorted([*value, *_ASYNC]) if name == "__all__" else value
        return value

    def __dir__() -> List[str]:
        return sorted({*globals(), *__getattr__("__all__")})
