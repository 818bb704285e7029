"""Which refusals are about the model: told by their codes and words, whatever else they may mention."""

import json
from dataclasses import replace
from typing import Any, Dict

import pytest
from wire import MESSAGE, NOW, plain

from copilot_sync.errors import InvalidRequestError, ModelNotAvailableError
from copilot_sync.protocol.errors import error_of_status
from copilot_sync.protocol.untrusted import RawReply


def refused(model: str, error: Dict[str, Any]) -> InvalidRequestError:
    """The error for a message to a model that the service answers with 400."""
    reply = RawReply(400, {}, json.dumps({"error": error}).encode())
    failure = error_of_status(replace(MESSAGE, model=model), reply, now=NOW, mask=plain)
    assert isinstance(failure, InvalidRequestError)
    return failure


@pytest.mark.parametrize(
    "words",
    [
        "The requested model is not supported.",
        "This model has been removed",
        "the requested model was sunset on 2026-05-01",
        "model has been discontinued",
        "The model is gone",
        "You do not have access to this model",
        "You don’t have access to this model",
        "Your plan does not include this model",
        "model access denied",
        "The model is restricted to Pro plans",
        "Model is limited to Pro plans",
        "gpt-4o is not available: limited to Pro plans",
        "GPT-4o left the service",
        "Unknown model: gpt-4",
        "no such model",
        "invalid value for field model",
        "model: invalid value",
        "This model can no longer be used",
        "Upgrade to Copilot Pro to use this model",
    ],
)
def test_words_that_refuse_the_model(words: str) -> None:
    """They name the model that was asked, or say something of "model" right beside it."""
    assert isinstance(refused("gpt-4o", {"message": words}), ModelNotAvailableError)


def test_a_model_may_be_called_by_its_name_for_people() -> None:
    """Which has spaces and capitals in it."""
    error = refused("claude-3.5-sonnet", {"message": "Claude 3.5 Sonnet left the service"})
    assert isinstance(error, ModelNotAvailableError)


@pytest.mark.parametrize(
    "words",
    [
        "gpt-4o does not support image input",
        "unsupported image type for this model",
        "The model produced invalid content. Consider modifying your prompt.",
        "The model returned an error: it is not allowed to answer this question",
        "Invalid prompt: it was flagged as violating our usage policy by the model",
        "No such repository: octocat/data-model",
        "references: path src/model not found",
        "references: file models/user.py not found",
        "the request is over the limit of gpt-4o",
    ],
)
def test_words_about_something_else(words: str) -> None:
    """A model is mentioned, but it is what was sent to it that is wrong."""
    assert not isinstance(refused("gpt-4o", {"message": words}), ModelNotAvailableError)


@pytest.mark.parametrize(
    "words",
    [
        "intent must be one of auto, conversation",
        "references: auto detection failed",
        "The auto model selection could not find the thread",
    ],
)
def test_a_model_whose_name_is_a_word_is_not_refused_by_that_word(words: str) -> None:
    """``auto`` is the default, and stands in sentences about anything."""
    assert not isinstance(refused("auto", {"message": words}), ModelNotAvailableError)
    assert isinstance(refused("auto", {"message": "the model auto is not supported"}), ModelNotAvailableError)


@pytest.mark.parametrize(
    "code",
    [
        "model_not_supported",
        "ModelNotFound",
        "model-not-available-for-integrator",
        "invalid_model",
        "unsupported_api_for_model",
        "no_access_to_model",
        "model_access_denied",
        "model_removed",
        "modelUnavailable",
    ],
)
def test_codes_that_refuse_the_model(code: str) -> None:
    """Whatever the words are."""
    assert isinstance(refused("gpt-4o", {"message": "no", "code": code}), ModelNotAvailableError)


@pytest.mark.parametrize(
    "code",
    ["model_max_prompt_tokens_exceeded", "model_unexpected_output", "model_note_too_long", "model_not_responding"],
)
def test_codes_that_only_begin_with_a_model(code: str) -> None:
    """They say what happened while it answered, or what it was sent."""
    assert not isinstance(refused("gpt-4o", {"message": "no", "code": code}), ModelNotAvailableError)
