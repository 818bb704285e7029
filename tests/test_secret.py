"""How secrets are held: never shown, and a value otherwise."""

import copy
import dataclasses
import json
import pickle
import traceback
from dataclasses import dataclass
from typing import Any

import pytest

from copilot_sync.secret import MaskedText, Secret

PLANTED = "tok_planted_5ecret"


@dataclass(frozen=True)
class Holder:
    """What might hold a secret."""

    token: Secret


def seen_in_a_traceback(token: Secret) -> str:
    try:
        raise ValueError(token)
    except ValueError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        lambda secret: f"{secret!r:>40} {secret:>40} {secret!s}",
        "{0} {0!r} {0:>9}".format,
        lambda secret: repr(Holder(secret)),
        lambda secret: repr([{"token": secret}, dataclasses.asdict(Holder(secret))]),
        lambda secret: str(ValueError(secret)) + repr(ValueError(secret)),
        seen_in_a_traceback,
    ],
    ids=["repr", "str", "ascii", "format", "f-string", "template", "dataclass", "containers", "exception", "traceback"],
)
def test_a_secret_never_shows_itself(show: Any) -> None:
    """However it is printed by accident, stars come out."""
    shown = show(Secret(PLANTED))
    assert "***" in shown
    assert "planted" not in shown


def test_a_secret_takes_a_format_like_any_text() -> None:
    """A column of a table stays one."""
    assert f"{Secret(PLANTED):>6}|" == "   ***|"


def test_a_secret_is_a_value() -> None:
    """It compares, hashes and pickles by what is inside, which only ``reveal`` gives."""
    secret = Secret(PLANTED)
    arrived = pickle.loads(pickle.dumps(secret))
    assert arrived == secret
    assert {secret: 1}[arrived] == 1
    assert arrived.reveal() == PLANTED
    assert secret != Secret("other")
    assert secret != PLANTED
    assert (bool(secret), bool(Secret(""))) == (True, False)


def test_a_masked_text_is_a_text_that_is_shown_as_stars() -> None:
    """Libraries send it as it is; neither it nor what it becomes on the wire is shown. A copy is an ordinary text."""
    text = MaskedText("planted")
    sent = text.encode("latin-1")
    assert (text, sent, text + "!", hash(text)) == ("planted", b"planted", "planted!", hash("planted"))
    assert (repr(text), repr({"a": text}), repr(sent), repr([sent])) == ("'***'", "{'a': '***'}", "b'***'", "[b'***']")
    for again in (pickle.loads(pickle.dumps(text)), copy.deepcopy(text)):
        assert (type(again), again) == (str, "planted")
    assert json.dumps(text) == '"planted"'


@pytest.mark.parametrize("value", ["text", None, {"user_session": "planted"}, ["planted"], b"planted"], ids=ascii)
def test_anything_may_be_a_secret(value: Any) -> None:
    """Arguments become secrets before anybody looks at them. A secret does not become another one."""
    secret = Secret.coerce(value)
    assert secret.reveal() is value
    assert Secret.coerce(secret) is secret
    assert f"{secret!r} {secret}" == "Secret(***) ***"
    assert secret == Secret(value)
