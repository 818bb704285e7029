"""What models and quota are on each plan: of the library, and as the whole program shows it."""

import subprocess
from typing import Tuple

import pytest
from command_line import command, environment
from support import stages

from copilot_sync import AuthenticationError, Client, NotFoundError
from copilot_sync.emulator import Emulator


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


def test_the_quota_does_not_depend_on_the_host_of_the_plan(served: Emulator, client: Client) -> None:
    """It is github.com that is asked, so that it is there though ``api_url`` is wrong."""
    served.options.plan = "business"
    assert client.quota().plan == "business"
    status, out, _ = ran("quota")
    assert status == 0
    assert "plan\tbusiness\n" in out
    assert set(stages(served)) == {"quota"}


@pytest.mark.parametrize("bad_cookies", ["redirect", "html", "unauthorized"])
def test_cookies_of_nobody_have_no_quota(served: Emulator, bad_cookies: str) -> None:
    """However the service says it."""
    served.options.bad_cookies = bad_cookies  # type: ignore[assignment]
    with Client(cookies={"user_session": "stale"}, retry=None) as client, pytest.raises(AuthenticationError) as caught:
        client.quota()
    assert caught.value.stage == "quota"
