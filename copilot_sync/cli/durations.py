"""How long something takes, in the user's language."""

from copilot_sync import times
from copilot_sync.cli.language import _


def duration(seconds: float) -> str:
    """Write it as ``times.duration`` does, which is for the log and for errors."""
    units = {"d": _("d"), "h": _("h"), "min": _("min"), "s": _("s")}
    return " ".join(units.get(word, word) for word in times.duration(seconds).split(" "))
