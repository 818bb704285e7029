"""What a call may need for the first time, loaded before there is a call.

An import, the look-up of a codec and the first line of a logger each take a lock. If another thread forks at that
moment, the child inherits the lock locked and waits for ever. So a client loads all of it when it is made. The
package itself does not, because ``import copilot_sync`` would become slower for those who never ask anything.
"""

import codecs
import importlib
import logging

#: Imported inside functions, here or in what we stand on.
_MODULES = ("html", "pickle", "signal", "tenacity", "uuid")
_CODECS = (
    "ascii",
    "latin-1",
    "iso-8859-1",  # the same, as http.client has it: PyPy looks up each name by itself
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-le",
    "utf-32-be",
    "idna",
)
#: Those of others that are used with each request. Ours are its parents' children.
_LOGGERS = ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "urllib3.response")


def preload() -> None:
    """Load what a call may need. The first time takes some 30 ms; after that it costs nothing worth mentioning."""
    for name in _MODULES:
        importlib.import_module(name)
    for name in _CODECS:
        codecs.lookup(name)
    known = list(logging.root.manager.loggerDict)  # at one go: other threads add to it
    ours = [name for name in known if name.startswith("copilot_sync")]
    for name in (*_LOGGERS, *ours):
        logger = logging.getLogger(name)
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logger.isEnabledFor(level)  # remembered by the logger
