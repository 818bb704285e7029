"""What an emulated account has: its plan, its quota, the page of the chat and the models."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional

import pytest
from emulated import Heard, api, ask, events_of, fetch_token, github, messages_of, new_thread, post

from copilot_sync.emulator import Emulator, EmulatorOptions, Reply
from copilot_sync.emulator.account_pages import _next_month

PAGE = "/copilot"
QUOTA = "/github-copilot/chat/entitlement"


#: What GitHub's public lists have (October 2026).
LATE_2026 = [
    "gpt-5-mini",
    "gpt-5.3-codex",
    "gpt-5.4",
    "gpt-5.4-mini",
    "gpt-5.5",
    "gpt-6-sol",
    "gpt-6-luna",
    "claude-haiku-4.5",
    "claude-sonnet-5",
    "claude-opus-5.5",
    "gemini-3.8-flash",
    "grok-4.7",
    "mai-code-1.1-flash",
]
RETIRED = ["o1-mini", "o1-preview", "claude-3.5-sonnet"]


def page_data(heard: Heard) -> Any:
    """What the page's script holds."""
    scripts = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', heard.body.decode(), re.DOTALL)
    return json.loads(scripts[0])["payload"]


def listed(emulator: Emulator, path: str = "/github/chat/models") -> Dict[str, Dict[str, Any]]:
    return {model["id"]: model for model in api(emulator, "GET", path).json["data"]}


@pytest.mark.parametrize("path", [PAGE, QUOTA])
@pytest.mark.parametrize("cookie", ["user_session=other", "", None])
@pytest.mark.parametrize(
    ("manner", "status", "sign"),
    [("redirect", 302, "/login"), ("html", 200, "Sign in"), ("unauthorized", 401, "Requires authentication")],
)
def test_without_valid_cookies_each_page_leads_to_the_login(
    emulator: Emulator, path: str, cookie: Optional[str], manner: Any, status: int, sign: str
) -> None:
    """As the token endpoint does; the redirect says where to return to."""
    emulator.options.bad_cookies = manner
    reply = github(emulator, "GET", path, Cookie=cookie)
    location = reply.headers.get("Location", "")
    assert (reply.status, sign in location + reply.body.decode()) == (status, True)
    assert manner != "redirect" or location == "/login?return_to=" + path.replace("/", "%2F")


@pytest.mark.parametrize("plan", ["free", "pro", "business"])
def test_the_page_names_the_host_of_the_plan(plan: Any) -> None:
    """A JSON script in it has the URL and the version of the API."""
    with Emulator(options=EmulatorOptions(plan=plan)) as emulator:
        reply = github(emulator, "GET", PAGE)
        home = emulator.plan_api_url if plan == "business" else emulator.api_url
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert page_data(reply) == {"apiURL": home, "apiVersion": "2025-05-01"}
        assert f'"apiURL":"{home}","apiVersion":"2025-05-01"' in reply.body.decode()
        assert [request.stage for request in emulator.requests] == ["page"]


def test_a_script_of_the_page_ends_where_it_should() -> None:
    """A host name can't end the script early."""
    with Emulator(hostname="</script>") as emulator:
        port = emulator.api_url.rpartition(":")[2]
        cookie = f"user_session={emulator.cookies['user_session']}"
        github_url = emulator.github_url.replace("</script>", "127.0.0.1")
        page = ask(github_url, "GET", PAGE, None, {"Cookie": cookie})
        assert page_data(page)["apiURL"] == f"http://</script>:{port}"


@pytest.mark.parametrize("plan", ["free", "pro", "business"])
def test_one_of_the_two_hosts_answers(plan: Any) -> None:
    """The other one answers 421 in plain text, but only to a bearer that is valid."""
    with Emulator(options=EmulatorOptions(plan=plan)) as emulator:
        hosts = [emulator.api_url, emulator.plan_api_url]
        good, bad = reversed(hosts) if plan == "business" else hosts
        token = fetch_token(emulator).json["token"]
        bearer = {"Authorization": f"GitHub-Bearer {token}"}
        assert ask(good, "GET", "/models", None, bearer).status == 200
        refused = ask(bad, "GET", "/models", None, bearer)
        assert (refused.status, refused.headers["Content-Type"]) == (421, "text/plain; charset=utf-8")
        assert ask(bad, "GET", "/models").status == 401
        assert emulator.requests[-2].host == ("api" if plan == "business" else "plan_api")


def test_a_cookie_at_the_plans_host_is_a_leak() -> None:
    """It is a host of the API like the other one."""
    with Emulator(options=EmulatorOptions(plan="business")) as emulator:
        ask(emulator.plan_api_url, "GET", "/models", None, {"Cookie": "user_session=x"})
        assert [leak.kind for leak in emulator.leaks] == ["cookie"]


def test_an_account_without_copilot_gets_no_token(emulator: Emulator) -> None:
    """The reason stands where the token would be; there is no quota, and the page names no host."""
    emulator.options.plan = "none"
    reply = fetch_token(emulator)
    assert (reply.status, reply.json) == (
        200,
        {"token": None, "error_details": {"message": "No access to GitHub Copilot found"}},
    )
    assert emulator.tokens_issued == 0
    assert github(emulator, "GET", QUOTA).status == 404
    page = github(emulator, "GET", PAGE)
    assert (page.status, b"apiURL" in page.body) == (200, False)


@pytest.mark.parametrize(
    ("plan", "license_type", "limit"),
    [("free", "licensed_limited", 50), ("pro", "licensed_full", 300), ("business", "licensed_full", 300)],
)
def test_the_quota_is_that_of_the_plan(emulator: Emulator, plan: Any, license_type: str, limit: int) -> None:
    """All of it is left, until the first of the next month."""
    emulator.options.plan = plan
    reply = github(emulator, "GET", QUOTA).json
    resets = reply["quotas"].pop("resetDate")
    assert re.match(r"\d{4}-\d\d-01\Z", resets)
    assert reply == {
        "licenseType": license_type,
        "plan": plan,
        "quotas": {
            "limits": {"premiumInteractions": limit},
            "remaining": {
                "premiumInteractions": limit,
                "chatPercentage": 100.0,
                "premiumInteractionsPercentage": 100.0,
            },
            "overagesEnabled": False,
        },
    }


def test_the_numbers_of_the_quota_can_be_set(emulator: Emulator) -> None:
    """What the options name is replaced, the rest stays; also by what is no quota at all."""
    emulator.options.quota = {"remaining": {"premiumInteractions": 0}, "resetDate": None}
    quotas = github(emulator, "GET", QUOTA).json["quotas"]
    assert quotas == {
        "limits": {"premiumInteractions": 300},
        "remaining": {"premiumInteractions": 0},
        "resetDate": None,
        "overagesEnabled": False,
    }


@pytest.mark.parametrize(("now", "then"), [((2026, 11, 30), "2026-12-01"), ((2026, 12, 1), "2027-01-01")])
def test_a_quota_is_reset_with_the_next_month(monkeypatch: pytest.MonkeyPatch, now: Any, then: str) -> None:
    """Also at the end of a year."""
    from copilot_sync.emulator import account_pages

    moment = account_pages.time.struct_time((*now, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(account_pages.time, "gmtime", lambda: moment)
    assert _next_month() == then


def test_a_plan_that_does_not_exist_is_refused() -> None:
    """In the call that names it."""
    with pytest.raises(ValueError, match="plan is one of free, pro, business, none, not 'team'"):
        EmulatorOptions(plan="team")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/models", "/github/chat/models"])
def test_models_are_listed_under_both_paths(emulator: Emulator, path: str) -> None:
    """With all fields of the wire; those of 2026 and gpt-4o, but not auto and not the retired ones."""
    models = listed(emulator, path)
    assert set(models) == {*LATE_2026, "gpt-4o", "gpt-4o-mini", "text-embedding-3-small"}
    assert models["claude-opus-5.5"] == {
        "id": "claude-opus-5.5",
        "name": "Claude Opus 5.5",
        "vendor": "Anthropic",
        "version": "claude-opus-5.5",
        "preview": False,
        "capabilities": {
            "type": "chat",
            "family": "claude-opus-5.5",
            "limits": {"max_context_window_tokens": 128_000, "max_output_tokens": 4_096},
            "supports": {"streaming": True, "tool_calls": True, "vision": True},
        },
        "model_picker_enabled": True,
        "model_picker_category": "powerful",
        "is_chat_default": False,
        "is_chat_fallback": False,
        "billing": {
            "is_premium": True,
            "multiplier": 3,
            "restricted_to": ["pro", "pro_plus", "business", "enterprise"],
        },
        "policy": {"state": "enabled", "terms": ""},
    }


def test_a_list_has_models_of_every_kind(emulator: Emulator) -> None:
    """Embeddings, one that the picker hides, one default and one fallback."""
    models = listed(emulator).values()
    assert [model["id"] for model in models if model["capabilities"]["type"] == "embeddings"] == [
        "text-embedding-3-small"
    ]
    hidden = [model["id"] for model in models if not model["model_picker_enabled"]]
    assert hidden == ["gpt-4o-mini", "text-embedding-3-small"]
    assert [model["id"] for model in models if model["is_chat_default"]] == ["gpt-5-mini"]
    assert [model["id"] for model in models if model["is_chat_fallback"]] == ["gpt-4o"]


def test_the_options_say_what_is_listed(emulator: Emulator) -> None:
    """What a mapping says wins over what is made up."""
    emulator.options.models = ["claude-3.5-sonnet", {"id": "o1-preview", "vendor": "OpenAI"}]
    first, second = listed(emulator, "/models").values()
    assert (first["id"], first["vendor"], first["preview"]) == ("claude-3.5-sonnet", "Anthropic", False)
    assert (second["id"], second["vendor"], second["preview"]) == ("o1-preview", "OpenAI", True)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", *LATE_2026, *RETIRED, "auto"])
def test_listed_models_answer_and_so_do_the_retired_ones(emulator: Emulator, model: str) -> None:
    """Those that the documentation names answer although they are not listed, for convenience."""
    assert post(emulator, new_thread(emulator), model=model).status == 200


def refusal(model: str) -> Dict[str, object]:
    return {"error": {"message": f"The requested model is not supported: {model}", "code": "model_not_supported"}}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("gpt-99", {}),
        ("o1-mini", {"unlisted_models": ()}),
        ("text-embedding-3-small", {}),
        ("off", {"models": [{"id": "off", "policy": {"state": "disabled"}}]}),
        ("odd", {"models": [{"id": "odd", "capabilities": None}]}),
    ],
    ids=["unknown", "retired", "embeddings", "disabled", "odd"],
)
def test_a_model_that_cannot_be_asked_is_refused(model: str, options: Dict[str, Any]) -> None:
    """400 that names it, and nothing is stored."""
    with Emulator(options=EmulatorOptions(**options)) as emulator:
        thread_id = new_thread(emulator)
        reply = post(emulator, thread_id, model=model)
        assert (reply.status, reply.json) == (400, refusal(model))
        assert emulator.threads[thread_id].messages == []


def test_a_model_without_a_policy_answers(emulator: Emulator) -> None:
    """Nothing disables it."""
    emulator.options.models = [{"id": "odd", "policy": None}]
    assert post(emulator, new_thread(emulator), model="odd").status == 200


def test_a_model_may_be_retired_between_two_calls(emulator: Emulator) -> None:
    """The options hold from one request to the next."""
    thread_id = new_thread(emulator)
    assert post(emulator, thread_id, model="gpt-4o").status == 200
    emulator.options.models = ["gpt-5-mini"]
    assert post(emulator, thread_id, model="gpt-4o").json == refusal("gpt-4o")
    assert list(listed(emulator)) == ["gpt-5-mini"]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-mini", "o1-mini"])
def test_the_free_plan_answers_auto_alone(emulator: Emulator, model: str) -> None:
    """Every other model is refused, and the picker shows none."""
    emulator.options.plan = "free"
    thread_id = new_thread(emulator)
    assert post(emulator, thread_id, model=model).json == refusal(model)
    assert post(emulator, thread_id, model="auto").status == 200
    assert not any(each["model_picker_enabled"] for each in listed(emulator).values())


def test_auto_is_a_model_and_the_choice_is_announced(emulator: Emulator) -> None:
    """The first event names the model, the answer in the thread does, and the thread remembers it."""
    thread_id = new_thread(emulator)
    reply = post(emulator, thread_id, model="auto")
    assert events_of(reply)[0] == {"type": "routedModel", "model": "mai-code-1.1-flash"}
    question, answer = messages_of(emulator, thread_id)
    assert (question["model"], question["generatedWithAuto"]) == ("auto", False)
    assert (answer["model"], answer["generatedWithAuto"]) == ("mai-code-1.1-flash", True)
    assert emulator.threads[thread_id].to_dict()["autoPickedModel"] == "mai-code-1.1-flash"


def test_what_auto_chooses_can_be_set(emulator: Emulator) -> None:
    """By the options for every message, by a reply for one."""
    emulator.options.auto_model = "gpt-5-mini"
    emulator.script(Reply("x", routed_model="grok-4.7"))
    thread_id = new_thread(emulator)
    chosen: List[str] = []
    for _ in range(2):
        chosen.append(events_of(post(emulator, thread_id, model="auto"))[0]["model"])
    assert chosen == ["grok-4.7", "gpt-5-mini"]
    assert [message["model"] for message in emulator.threads[thread_id].assistant_messages] == chosen


def test_auto_may_announce_nothing(emulator: Emulator) -> None:
    """Without a name there is no event, and the thread knows no model but the one asked for."""
    emulator.options.auto_model = ""
    thread_id = new_thread(emulator)
    assert b"routedModel" not in post(emulator, thread_id, model="auto").body
    assert messages_of(emulator, thread_id)[1]["model"] == "auto"


def test_empty_lists_may_come_as_null(emulator: Emulator) -> None:
    """Threads, messages and models, but never a list that has something in it."""
    emulator.options.models = ()
    assert api(emulator, "GET", "/models").json == {"data": []}
    emulator.options.null_lists = True
    assert api(emulator, "GET", "/models").json == {"data": None}
    assert api(emulator, "GET", "/github/chat/threads").json == {"threads": None}
    thread_id = new_thread(emulator)
    assert messages_of(emulator, thread_id) is None
    assert len(api(emulator, "GET", "/github/chat/threads").json["threads"]) == 1
