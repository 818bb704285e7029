"""Models, quota and API host on each plan: of the library, and as the whole program shows them."""

import subprocess
from typing import Any, Tuple

import pytest
from command_line import command, environment
from support import stages

from copilot_sync import AuthenticationError, Client, NotFoundError
from copilot_sync.emulator import Emulator, Fault


@pytest.fixture
def client(served: Emulator) -> Client:
    return Client(retry=None)


def ran(*arguments: str) -> Tuple[int, str, str]:
    """The program's status, and what it wrote to stdout and stderr."""
    done = subprocess.run(command(*arguments), env=environment(), check=False, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_models_of_a_paid_plan(served: Emulator, client: Client) -> None:
    """What can be chatted with; what the picker does not show, and embeddings, only if all is asked for."""
    listed = {model.id: model for model in client.models()}
    everything = {model.id: model for model in client.models(all=True)}
    assert (listed["gpt-5.5"].premium_multiplier, listed["gpt-5.5"].picker_category) == (7.5, "powerful")
    assert set(everything) - set(listed) == {"gpt-4o-mini", "text-embedding-3-small"}
    assert everything["text-embedding-3-small"].kind == "embeddings"
    assert set(stages(served)) == {"token", "models"}


def test_a_free_plan_has_auto_alone(served: Emulator, client: Client) -> None:
    """Nothing is listed for chats, which is no fault: the default answers."""
    served.options.plan = "free"
    assert client.models() == []
    assert len(client.models(all=True)) == len(served.options.models)
    status, out, err = ran("doctor")
    assert (status, err) == (0, "")
    assert "✓ models: none but auto available\n" in out
    assert "✓ quota: plan free, license licensed_limited, premiumInteractions 50 left of 50, " in out


def test_a_model_of_a_paid_plan_has_no_tick_on_a_free_one(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and may be refused. One that is not there is a cross."""
    served.options.plan = "free"
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "gpt-5.5")
    status, out, _ = ran("doctor")
    assert status == 0
    assert "- models: none but auto available; gpt-5.5 is not enabled, and may be refused\n" in out
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "gpt-4")
    status, out, _ = ran("doctor")
    assert status == 1
    assert "✗ models: none but auto available, but gpt-4 is not among them -> choose another" in out


def test_an_account_without_copilot(served: Emulator, client: Client) -> None:
    """The token says why there are no models; the quota is not there."""
    served.options.plan = "none"
    with pytest.raises(AuthenticationError, match="No access to GitHub Copilot found"):
        client.models()
    with pytest.raises(NotFoundError, match="this account has no Copilot"):
        client.quota()
    status, out, err = ran("quota")
    assert (status, out) == (1, "")
    assert err.startswith("Error: github.com knows no quota: this account has no Copilot")
    assert err.endswith("; check with: copilot-sync doctor\n")
    status, out, _ = ran("doctor")
    assert status == 1
    assert " -> get Copilot for this account, or export the cookies of one that has it\n" in out


def test_the_quota_does_not_depend_on_the_host_of_the_plan(served: Emulator, client: Client) -> None:
    """It is github.com that is asked, so that it is there though ``api_url`` is wrong."""
    served.options.plan = "business"
    assert client.quota().plan == "business"
    status, out, _ = ran("quota")
    assert status == 0
    assert "plan\tbusiness\n" in out
    assert set(stages(served)) == {"quota"}


def test_a_question_of_a_business_account_is_told_its_host(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of individual plans refuses it, and the error says which one to set: so it is answered."""
    served.options.plan = "business"
    status, out, err = ran("ask", "hi")
    assert (status, out) == (1, "")
    home = served.plan_api_url
    assert f"set api_url (or COPILOT_SYNC_API_URL) to {home}, which the account's page names" in err
    assert err.endswith("check with: copilot-sync doctor\n")
    assert stages(served) == ["token", "thread", "page"]
    monkeypatch.setenv("COPILOT_SYNC_API_URL", home)
    assert ran("ask", "hi") == (0, "hi\n", "")


@pytest.mark.parametrize("plan", ["business", "pro"])
@pytest.mark.parametrize("way", ["cookies", "token and cookies"])
def test_auto_answers_on_each_plan(served: Emulator, plan: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word about hosts. The next question goes on with the conversation."""
    served.options.plan = plan
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "auto")
    if way == "token and cookies":
        monkeypatch.setenv("COPILOT_SYNC_API_KEY", served.api_key)
    for arguments in (["hi"], ["--continue", "and"]):
        assert ran("ask", *arguments) == (0, f"{arguments[-1]}\n", "")
    [thread] = served.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["hi", "and"]
    asked = {request.host for request in served.requests if request.bearer}
    assert asked == {"plan_api" if plan == "business" else "api"}


def test_auto_with_a_token_alone_is_told(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program and by ``doctor``, and nothing is sent."""
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "auto")
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", served.api_key)
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    status, out, err = ran("ask", "hi")
    assert (status, out) == (1, "")
    assert err.startswith('Error: an environment variable is wrong: api_url="auto" needs cookies')
    status, out, _ = ran("doctor")
    assert status == 1
    assert '✗ credentials: api_url="auto" needs cookies' in out
    assert " -> set COPILOT_SYNC_COOKIES, or unset COPILOT_SYNC_API_URL\n" in out
    assert served.api_key not in out + err
    assert stages(served) == []


def test_doctor_says_which_host_to_set(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a quota that does not depend on it. Done as it says, all is well; with ``auto`` as well."""
    served.options.plan = "business"
    status, out, err = ran("doctor")
    assert (status, err) == (1, "")
    [line] = [line for line in out.splitlines() if line.startswith("✗")]
    assert line.startswith("✗ API host: ")
    assert "- models: not tried\n" in out
    assert "✓ quota: plan business, " in out
    name, _, value = line.rpartition(" -> export ")[2].partition("=")
    assert value == served.plan_api_url
    for setting in (value, "auto"):
        monkeypatch.setenv(name, setting)
        status, out, _ = ran("doctor")
        assert (status, "✗" in out) == (0, False)
    assert f"✓ API host: {served.plan_api_url}, which the account's page names\n" in out


@pytest.mark.parametrize("page", [Fault.status(500), Fault.redirect(), Fault.garbage("<html>")])
def test_a_page_that_does_not_help_leaves_the_known_hosts(served: Emulator, page: Fault) -> None:
    """The error is still the one of the host, with what hosts there are."""
    served.options.plan = "business"
    served.fail("page", page)
    status, out, err = ran("ask", "hi")
    assert (status, out) == (1, "")
    assert "to https://api.business.githubcopilot.com or https://api.enterprise.githubcopilot.com" in err


@pytest.mark.parametrize("bad_cookies", ["redirect", "html", "unauthorized"])
def test_cookies_of_nobody_have_no_quota(served: Emulator, bad_cookies: str) -> None:
    """However the service says it."""
    served.options.bad_cookies = bad_cookies  # type: ignore[assignment]
    with Client(cookies={"user_session": "stale"}, retry=None) as client, pytest.raises(AuthenticationError) as caught:
        client.quota()
    assert caught.value.stage == "quota"
