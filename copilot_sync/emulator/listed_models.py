"""The models of an emulated Copilot: which are listed, with which fields, and which answer.

``DEFAULT_MODELS`` are the ids of GitHub's public lists (October 2026), with the fields that the wire has (public
captures, 2026). The values of the fields are made up, and so is which of them is for whom. Two entries are there
because a list has such entries too: a model of embeddings, and a model that the page's picker doesn't show.

Pure functions of the emulator's options: no state, no socket, no clock.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

ListedModel = Union[str, Mapping[str, Any]]
"""A model as the options name it: an id, or a mapping with an ``id`` and any other fields of the wire."""

AUTO = "auto"
"""What a client asks for if the service is to choose. It is never listed and always answered."""

_PAID_PLANS = ["pro", "pro_plus", "business", "enterprise"]
_VENDORS = (
    ("claude", "Anthropic"),
    ("gemini", "Google"),
    ("grok", "xAI"),
    ("mai", "Microsoft"),
)


def _premium(multiplier: float) -> Dict[str, Any]:
    return {"is_premium": True, "multiplier": multiplier, "restricted_to": _PAID_PLANS}


DEFAULT_MODELS: Sequence[ListedModel] = (
    {"id": "gpt-5-mini", "name": "GPT-5 mini", "is_chat_default": True},
    {"id": "gpt-5.3-codex", "name": "GPT-5.3-Codex", "model_picker_category": "powerful", "billing": _premium(1)},
    {"id": "gpt-5.4", "name": "GPT-5.4", "model_picker_category": "versatile", "billing": _premium(1)},
    {"id": "gpt-5.4-mini", "name": "GPT-5.4 mini", "billing": _premium(0.33)},
    {"id": "gpt-5.5", "name": "GPT-5.5", "model_picker_category": "powerful", "billing": _premium(7.5)},
    {"id": "gpt-6-sol", "name": "GPT-6 Sol", "model_picker_category": "powerful", "billing": _premium(3)},
    {"id": "gpt-6-luna", "name": "GPT-6 Luna", "model_picker_category": "versatile", "billing": _premium(1)},
    {"id": "claude-haiku-4.5", "name": "Claude Haiku 4.5", "billing": _premium(0.33)},
    {"id": "claude-sonnet-5", "name": "Claude Sonnet 5", "model_picker_category": "versatile", "billing": _premium(1)},
    {"id": "claude-opus-5.5", "name": "Claude Opus 5.5", "model_picker_category": "powerful", "billing": _premium(3)},
    {"id": "gemini-3.8-flash", "name": "Gemini 3.8 Flash", "preview": True, "billing": _premium(0.33)},
    {"id": "grok-4.7", "name": "Grok 4.7", "model_picker_category": "versatile", "billing": _premium(1)},
    {"id": "mai-code-1.1-flash", "name": "MAI-Code-1.1-Flash"},
    {"id": "gpt-4o", "name": "GPT-4o", "model_picker_category": "versatile", "is_chat_fallback": True},
    {"id": "gpt-4o-mini", "name": "GPT-4o mini", "model_picker_enabled": False, "model_picker_category": None},
    {
        "id": "text-embedding-3-small",
        "name": "Embedding V3 small",
        "capabilities": {
            "type": "embeddings",
            "family": "text-embedding-3-small",
            "limits": {"max_inputs": 512},
            "supports": {"dimensions": True},
        },
        "model_picker_enabled": False,
        "model_picker_category": None,
    },
)
RETIRED_MODELS = ("o1-mini", "o1-preview", "claude-3.5-sonnet")
"""Models that the documented class offers and that the service retired before the end of 2026."""


def list_models(models: Sequence[ListedModel], plan: str) -> List[Dict[str, Any]]:
    """Return the models as the wire lists them; on the plan "free" the picker shows none of them."""
    listed = [_to_dict(model) for model in models]
    if plan == "free":
        listed = [{**model, "model_picker_enabled": False} for model in listed]
    return listed


def can_chat(model: str, models: Sequence[ListedModel], unlisted: Sequence[str], plan: str) -> bool:
    """Return whether a message may ask for ``model``.

    Always for ``auto``, and on the plan "free" for nothing else (public captures, 2026). Otherwise for the unlisted
    models, and for the listed ones that chat and that no policy disables.
    """
    if model == AUTO:
        return True
    if plan == "free":
        return False
    return model in unlisted or any(each["id"] == model and _chats(each) for each in map(_to_dict, models))


def _chats(model: Mapping[str, Any]) -> bool:
    return _field(model, "capabilities", "type") == "chat" and _field(model, "policy", "state") != "disabled"


def _field(model: Mapping[str, Any], group: str, name: str) -> Optional[Any]:
    fields = model[group]
    return fields.get(name) if isinstance(fields, Mapping) else None


def _to_dict(model: ListedModel) -> Dict[str, Any]:
    given = {"id": model} if isinstance(model, str) else model
    name = given["id"]
    return {
        "name": name,
        "vendor": next((vendor for start, vendor in _VENDORS if name.startswith(start)), "Azure OpenAI"),
        "version": name,
        "preview": name.endswith("-preview"),
        "capabilities": {
            "type": "chat",
            "family": name,
            "limits": {"max_context_window_tokens": 128_000, "max_output_tokens": 4_096},
            "supports": {"streaming": True, "tool_calls": True, "vision": True},
        },
        "model_picker_enabled": True,
        "model_picker_category": "lightweight",
        "is_chat_default": False,
        "is_chat_fallback": False,
        "billing": {"is_premium": False, "multiplier": 0, "restricted_to": None},
        "policy": {"state": "enabled", "terms": ""},
        **given,
    }
