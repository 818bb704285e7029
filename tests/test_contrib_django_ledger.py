"""The ledger of a Django site: calls become rows, whatever a view does, and the admin adds them up."""

import asyncio
import datetime
import io
import pickle
from typing import Any, Iterator, List

import pytest
from support import Worker, collect_garbage, configure_django, nothing_left_open

pytest.importorskip("django")

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient as BrowserOfLoop
from django.test import Client, override_settings
from django.urls import path

configure_django()  # before anything asks for a model

# isort: split
from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import Permission, User  # noqa: E402

from copilot_sync import AsyncClient, LedgerEntry, LedgerUsage  # noqa: E402
from copilot_sync import Client as CopilotClient  # noqa: E402
from copilot_sync.contrib.django import astream_response, get_client, stream_response  # noqa: E402
from copilot_sync.contrib.django.ledger import DjangoLedger  # noqa: E402
from copilot_sync.contrib.django.ledger.models import Call  # noqa: E402
from copilot_sync.emulator import Emulator  # noqa: E402

UTC = datetime.timezone.utc
#: The first of November 2026.
NOVEMBER = datetime.datetime(2026, 11, 1, tzinfo=UTC)
DAY = datetime.timedelta(1)


def ask(request: HttpRequest) -> HttpResponse:
    """Ask in a transaction that is rolled back."""
    with transaction.atomic():
        get_client().ask("Hi", label="view", user="ann")
        transaction.set_rollback(True)
    return HttpResponse()


def stream(request: HttpRequest) -> Any:
    """Stream an answer."""
    return stream_response(request, "Hi", label="WSGI", user="ann")


async def stream_asynchronously(request: HttpRequest) -> Any:
    """The same, as a coroutine."""
    return await astream_response(request, "Hi", label="ASGI", user="bob")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("ask", ask),
    path("stream", stream),
    path("async", stream_asynchronously),
]


@pytest.fixture(scope="module", autouse=True)
def _tables(tmp_path_factory: pytest.TempPathFactory) -> None:
    database = tmp_path_factory.mktemp("django") / "ledger.sqlite3"
    connections["default"].close()
    connections["default"].settings_dict["NAME"] = str(database)
    call_command("migrate", verbosity=0)
    connections.close_all()


@pytest.fixture(autouse=True)
def _site(emulator: Emulator) -> Iterator[None]:
    """A site that asks the emulator, and whose ledger is empty."""
    Call.objects.all().delete()
    configuration = {"API_KEY": emulator.api_key, "API_URL": emulator.api_url, "RETRY": None}
    with override_settings(COPILOT_SYNC=configuration, ROOT_URLCONF="test_contrib_django_ledger"):
        yield
    get_client().close()
    connections.close_all()
    collect_garbage()


def call(days: float = 0.0, **fields: Any) -> LedgerEntry:
    return LedgerEntry(NOVEMBER + days * DAY, **{"model": "auto", **fields})


CALLS = [
    call(0.0, model="a", label="x", user="ann", input_tokens=1, output_tokens=1000, seconds=0.5),
    call(0.9, model="a", answered_model="b", user="ann", input_tokens=2, output_tokens=2000, seconds=1.0),
    call(1.0, model="c", answered_model="b", user="bob", outcome="incomplete", seconds=2.0),
    call(1.5, model="c", user="bob", outcome="RateLimitError", seconds=4.0, attempts=4),
    call(2.5, model="c", outcome="closed", seconds=8.0),
]


def ledger(days: float = 2.5, **options: Any) -> DjangoLedger:
    """A ledger at a time."""
    return DjangoLedger(now=lambda: (NOVEMBER + days * DAY).timestamp(), **options)


def labels() -> List[str]:
    return sorted(Call.objects.values_list("label", flat=True))


def test_the_tables_are_those_of_the_models() -> None:
    """With each Django."""
    out = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", "copilot_sync_ledger", stdout=out)
    assert "No changes detected" in out.getvalue()


def test_the_sites_client_notes_its_calls() -> None:
    """Though the transaction of the view was rolled back."""
    with nothing_left_open():
        Client().get("/ask")
        get_client().close()
        connection.close()
    (found,) = Call.objects.all()
    assert (found.label, found.user, found.outcome, found.attempts) == ("view", "ann", "answered", 1)
    assert (found.input_tokens, found.output_tokens) == (1, 1)
    assert abs(datetime.datetime.now(UTC) - found.began_at) < datetime.timedelta(minutes=5)
    assert str(found) == f"{found.began_at:%Y-%m-%d %H:%M} auto: answered"


def test_a_streamed_answer_is_noted() -> None:
    """When it has ended."""
    response: Any = Client().get("/stream")
    assert b'"complete"' in b"".join(response.streaming_content)
    response.close()
    get_client().close()
    (found,) = Call.objects.all()
    assert (found.label, found.user, found.outcome) == ("WSGI", "ann", "answered")


@pytest.mark.skipif(django.VERSION < (4, 2), reason="Django 4.2 brought asynchronous bodies")
def test_a_streamed_answer_is_noted_under_asgi() -> None:
    """Though the event loop reads it."""

    async def main() -> bytes:
        response: Any = await BrowserOfLoop().get("/async")
        body = b"".join([part async for part in response.streaming_content])
        await sync_to_async(response.close)()
        await sync_to_async(connections.close_all)()
        return body

    assert b'"complete"' in asyncio.run(main())
    get_client().close()
    (found,) = Call.objects.all()
    assert (found.label, found.user, found.outcome) == ("ASGI", "bob", "answered")


@pytest.mark.parametrize("setting", [None, False])
def test_a_site_may_have_none(setting: Any, emulator: Emulator) -> None:
    """Though the application is installed."""
    with override_settings(COPILOT_SYNC={**settings.COPILOT_SYNC, "LEDGER": setting}):
        get_client().ask("Hi")
        get_client().close()
    assert labels() == []


def test_an_event_loop_does_not_wait_for_the_database(emulator: Emulator) -> None:
    """It would not be let to use it."""

    async def main() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url, ledger=DjangoLedger()) as client:
            await client.ask("Hi", label="loop")

    asyncio.run(main())
    assert labels() == ["loop"]


def test_threads_share_a_ledger(emulator: Emulator) -> None:
    """No call is lost."""
    with CopilotClient(emulator.api_key, api_url=emulator.api_url, ledger=DjangoLedger()) as client:
        workers = [Worker(lambda label=label: client.ask("Hi", label=label)) for label in "abcdefgh"]  # type: ignore[misc]
        for worker in workers:
            worker.result()
    assert labels() == list("abcdefgh")


def test_a_thread_keeps_its_own_connection() -> None:
    """If the ledger is written there, as at the end of an interpreter."""
    connection.ensure_connection()
    kept = connection.connection
    ledger().write([call()])
    assert connection.connection is kept
    assert Worker(lambda: (ledger().write([call()]), connection.connection)).result() == (None, None)
    assert len(labels()) == 2


def test_a_database_that_can_not_be_written_is_done_without(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged by its type."""
    with CopilotClient(emulator.api_key, api_url=emulator.api_url, ledger=DjangoLedger(using="missing")) as client:
        client.ask("Hi")
    assert caplog.messages == ["the ledger can't be written and is done without: ConnectionDoesNotExist"]


def test_a_ledger_pickles() -> None:
    """For ``spawn``."""
    again = pickle.loads(pickle.dumps(DjangoLedger(using="default", keep_days=3)))
    assert (again._using, again._keep_days) == ("default", 3)


@pytest.mark.parametrize("keep_days, left", [(400, 3), (2.0, 2), (None, 4)])
def test_old_calls_are_deleted(keep_days: Any, left: int) -> None:
    """When the next is written."""
    ledger(0, keep_days=keep_days).write([call(-500), call(-3.5), call(-1), call()])
    assert len(labels()) == left


def test_a_site_without_time_zones_has_its_own_time() -> None:
    """As the rest of its rows."""
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin"):
        ledger(0).write([call(-500), call()])
        (found,) = Call.objects.all()
        assert found.began_at == datetime.datetime(2026, 11, 1, 1)  # noqa: DTZ001 - it has no zone


def test_calls_are_added_up() -> None:
    """As a ``Ledger`` does, and those that are chosen."""
    ledger().write(CALLS)
    assert Call.objects.usage() == [
        LedgerUsage("2026-11-01", 2, 2, 0, 3, 3000, 1.5),
        LedgerUsage("2026-11-02", 2, 1, 1, 0, 0, 6.0),
        LedgerUsage("2026-11-03", 1, 0, 0, 0, 0, 8.0),
    ]
    assert Call.objects.usage("model") == [
        LedgerUsage("b", 2, 2, 0, 2, 2000, 3.0),
        LedgerUsage("c", 2, 0, 1, 0, 0, 12.0),
        LedgerUsage("a", 1, 1, 0, 1, 1000, 0.5),
    ]
    assert Call.objects.filter(user="ann").usage("label") == [
        LedgerUsage("", 1, 1, 0, 2, 2000, 1.0),
        LedgerUsage("x", 1, 1, 0, 1, 1000, 0.5),
    ]
    assert [row.name for row in Call.objects.usage("user")] == ["ann", "bob", ""]
    assert Call.objects.none().total() == LedgerUsage("total", 0, 0, 0, 0, 0, 0.0)
    with pytest.raises(ValueError, match="by must be one of day, model, label, user, not 'hour'"):
        Call.objects.usage("hour")


@pytest.fixture
def page() -> Iterator[Client]:
    """A browser of somebody who may see the calls."""
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_call"))
    page = Client()
    page.force_login(user)
    yield page
    user.delete()


PLACE = "/admin/copilot_sync_ledger/call/"


def test_the_admin_shows_the_calls_and_their_total(page: Client) -> None:
    """Of those that are chosen."""
    ledger().write(CALLS)
    shown = page.get(PLACE).content.decode()
    assert "5 calls, 3 answered, 1 failed: 3 tokens in, 3,000 out, 16 seconds" in shown
    assert "RateLimitError" in shown
    shown = page.get(PLACE, {"user": "ann", "q": "x"}).content.decode()
    assert "1 calls, 1 answered, 0 failed: 1 tokens in, 1,000 out, 0 seconds" in shown


def test_the_admin_changes_nothing(page: Client) -> None:
    """Neither by adding, nor by changing, nor by deleting."""
    ledger().write(CALLS[:1])
    (found,) = Call.objects.all()
    assert page.get(f"{PLACE}{found.pk}/change/").status_code == 200
    assert "Save" not in page.get(f"{PLACE}{found.pk}/change/").content.decode()
    for place in ("add/", f"{found.pk}/delete/"):
        assert page.get(f"{PLACE}{place}").status_code == 403
    assert page.post(f"{PLACE}{found.pk}/change/", {"label": "y"}).status_code == 403
    page.post(PLACE, {"action": "delete_selected", "_selected_action": found.pk, "post": "yes"})
    assert labels() == ["x"]


def test_others_see_nothing() -> None:
    """As with every page of the admin."""
    assert Client().get(PLACE).status_code == 302
