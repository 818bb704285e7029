"""The plugin of ``llm``: its models answer, conversations go on, keys come from where ``llm`` keeps them."""

import json
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest
from support import nothing_left_open

pytest.importorskip("llm")

import llm

from copilot_sync import CopilotError, GithubCopilot
from copilot_sync.contrib.llm import CopilotModel, register_models
from copilot_sync.emulator import Emulator, Fault, Reply


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """A service to which the environment points, and an empty folder of ``llm``."""
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            for name, value in served.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
            yield served


@pytest.fixture
def model(emulator: Emulator) -> Iterator[Any]:
    model: Any = CopilotModel("gpt-4o")
    yield model
    model._client[1].close()


@pytest.mark.parametrize("variable, named", [(None, []), ("gpt-6-sol", ["gpt-6-sol"]), ("auto", []), ("gpt-4o", [])])
def test_the_default_and_the_documented_models_are_registered(
    variable: Optional[str], named: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library's name and their own, each once; the one that the environment names comes along."""
    if variable is not None:
        monkeypatch.setenv("COPILOT_SYNC_MODEL", variable)
    registered: List[Any] = []
    register_models(lambda model, async_model=None: registered.append(model))
    names = [model.model_id.partition("/")[2] for model in registered]
    assert sorted(names) == sorted(["auto", *named, *GithubCopilot.models])
    assert names[0] == "auto"
    assert all(model.can_stream and model.model_id.startswith("copilot-sync/") for model in registered)


def test_a_prompt_is_answered_piece_by_piece(emulator: Emulator, model: Any) -> None:
    """By the model that was asked; its cost is told where this llm asks for it."""
    response = model.prompt("hi")
    assert list(response) == ["one ", "two"]
    (thread,) = emulator.threads.values()
    assert thread.user_messages[0]["content"] == "hi"
    assert [request.json["model"] for request in emulator.requests if request.stage == "message"] == ["gpt-4o"]
    assert response.response_json["conversation_id"] in emulator.threads
    if hasattr(response, "input_tokens"):  # pragma: some versions
        assert (response.input_tokens, response.output_tokens) == (1, 2)


def test_an_answer_that_is_not_streamed_comes_whole(emulator: Emulator, model: Any) -> None:
    """And the bill may be missing."""
    emulator.reply = Reply(["one ", "two"], usage={})
    assert list(model.prompt("hi", stream=False)) == ["one two"]


def test_a_system_prompt_is_an_instruction(emulator: Emulator, model: Any) -> None:
    """Also in a conversation that goes on."""
    conversation = model.conversation()
    conversation.prompt("hi", system="be brief").text()
    conversation.prompt("and?", system="be long").text()
    sent = [request.json for request in emulator.requests if request.stage == "message"]
    assert [each["customInstructions"] for each in sent] == [["be brief"], ["be long"]]
    assert [each["content"] for each in sent] == ["hi", "and?"]


def test_a_conversation_stays_in_its_thread(emulator: Emulator, model: Any) -> None:
    """In one process, and in the next, which knows its id alone."""
    conversation = model.conversation()
    conversation.prompt("one").text()
    conversation.prompt("two").text()
    later: Any = CopilotModel("gpt-4o")
    again = later.conversation()
    again.id = conversation.id
    again.prompt("three").text()
    later._client[1].close()
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "two", "three"]
    assert len({message["parentMessageID"] for message in thread.user_messages}) == 3
    model.conversation().prompt("other").text()
    assert len(emulator.threads) == 2


def test_a_conversation_whose_id_was_not_known_stays_in_its_thread(emulator: Emulator, model: Any) -> None:
    """As where ``llm`` logs a lone answer as a conversation, and reads it back to go on."""
    lone = model.prompt("one")
    lone.text()
    conversation = model.conversation()
    conversation.responses.append(lone)
    conversation.prompt("two").text()
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "two"]


class Other(llm.Model):  # type: ignore[misc, unused-ignore]
    """A model that is not the service's."""

    model_id = "other"

    def execute(self, *arguments: Any, **options: Any) -> Iterator[str]:
        yield "fine, thanks"


def test_what_another_model_was_told_is_told_first(emulator: Emulator, model: Any) -> None:
    """A conversation that was begun elsewhere has no thread yet, and goes on with one."""
    conversation: Any = Other().conversation()
    conversation.prompt("how are you?").text()
    conversation.model = model
    conversation.prompt("why?").text()
    (thread,) = emulator.threads.values()
    said = thread.user_messages[0]["content"]
    assert [said.index(words) for words in ("how are you?", "fine, thanks", "why?")] == sorted(
        said.index(words) for words in ("how are you?", "fine, thanks", "why?")
    )


def test_what_another_model_was_told_outlives_a_refusal(emulator: Emulator, model: Any) -> None:
    """The question that follows a refused one takes the earlier messages along, and no empty thread stays."""
    conversation: Any = Other().conversation()
    conversation.prompt("how are you?").text()
    conversation.model = model
    emulator.fail("message", Fault.status(422))
    with pytest.raises(CopilotError, match="422"):
        conversation.prompt("why?").text()
    assert not emulator.threads
    conversation.prompt("why?").text()
    (thread,) = emulator.threads.values()
    assert "fine, thanks" in thread.user_messages[0]["content"]


attachments_of_llm = pytest.mark.skipif(not hasattr(llm, "Attachment"), reason="this llm has no attachments")
CAT = "https://a.example/cat.png"


def last(emulator: Emulator) -> Any:
    return [request.json for request in emulator.requests if request.stage == "message"][-1]


@attachments_of_llm
def test_attachments_are_sent(emulator: Emulator, model: Any, tmp_path: Path) -> None:
    """Images by their addresses, and files that are text, also of what was said to another model before."""
    (tmp_path / "note.md").write_text("é", encoding="utf-8")
    attachments = [
        llm.Attachment(type="image/png", url=CAT),
        llm.Attachment(type="text/markdown", path=str(tmp_path / "note.md")),
        llm.Attachment(type="text/plain", content=b"x"),
    ]
    conversation = model.conversation()
    conversation.prompt("Look", attachments=attachments).text()
    body = last(emulator)
    assert body["content"] == "Look"
    assert body["mediaContent"] == [{"mediaType": "image/png", "name": "cat.png", "url": CAT}]
    assert [(each["name"], each["text"]) for each in body["references"]] == [("note.md", "é"), ("attachment.txt", "x")]
    conversation.prompt("Why?").text()
    assert (last(emulator)["content"], last(emulator)["mediaContent"]) == ("Why?", [])
    conversation.id = "a thread that is not known"
    conversation.responses[-1].response_json = None
    conversation.prompt("And now?").text()
    assert last(emulator)["mediaContent"] == body["mediaContent"]
    assert len(last(emulator)["references"]) == 2


@attachments_of_llm
def test_attachments_that_were_logged_are_sent(emulator: Emulator, model: Any) -> None:
    """With an answer that is read back, ``llm`` has them beside its prompt."""
    conversation = model.conversation()
    conversation.prompt("Look").text()
    (response,) = conversation.responses
    response.attachments = [llm.Attachment(type="image/png", url=CAT)]
    conversation.id, response.response_json = "a thread that is not known", None
    conversation.prompt("Why?").text()
    assert [media["name"] for media in last(emulator)["mediaContent"]] == ["cat.png"]


@attachments_of_llm
@pytest.mark.parametrize(
    ("attachment", "words"),
    [
        ({"type": "image/png", "content": b"\x89PNG\r\n"}, "the file 'attachment.txt', .*only text, text files, and"),
        ({"type": "image/png", "url": "http://a.example/cat.png"}, "an image, .*its address begins with http:"),
        ({"type": "text/plain", "url": "https://a.example/a.txt"}, "its address ends in '.txt'"),
        ({"type": "audio/wav", "content": b"RIFF"}, "does not support attachments of type"),
    ],
    ids=ascii,
)
def test_an_attachment_that_can_not_be_sent_is_refused(
    emulator: Emulator, model: Any, attachment: Any, words: str
) -> None:
    """With what can be; nothing is sent."""
    with pytest.raises(ValueError, match=words):
        model.prompt("Look", attachments=[llm.Attachment(**attachment)]).text()
    assert emulator.requests == []
    model._client_for(None)


def test_a_failure_is_the_librarys(emulator: Emulator, model: Any) -> None:
    """The conversation is gone on with afterwards."""
    emulator.fail("message", Fault.status(422))
    conversation = model.conversation()
    with pytest.raises(CopilotError, match="422"):
        conversation.prompt("one").text()
    conversation.prompt("two").text()
    assert len(emulator.threads) == 1


@pytest.mark.parametrize("place", ["keys", "environment", "model"])
def test_a_key_is_used_as_it_is(
    emulator: Emulator, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Wherever llm has it from; no token is fetched then."""
    if place == "keys":
        (tmp_path / "keys.json").write_text(json.dumps({"copilot-sync": emulator.api_key}))
    elif place == "environment":
        monkeypatch.setenv("COPILOT_SYNC_API_KEY", emulator.api_key)
    else:
        model.key = emulator.api_key
    assert model.prompt("hi").text() == "one two"
    assert emulator.tokens_issued == 0


def test_another_key_gets_another_client(emulator: Emulator, model: Any) -> None:
    """And the same one the same."""
    first = model._client_for(emulator.api_key)
    assert model._client_for(emulator.api_key) is first
    assert model._client_for(None) is not first


@pytest.mark.parametrize("variable, files", [(None, 1), ("off", 0)], ids=["by default", "switched off"])
def test_a_token_outlives_a_run(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: Any, files: int
) -> None:
    """In a file that only its owner can read, unless the user says otherwise."""
    if variable:
        monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", variable)
    for _ in range(2):
        model: Any = CopilotModel("gpt-4o")
        model.prompt("hi").text()
        model._client[1].close()
    assert emulator.tokens_issued == (1 if files else 2)
    kept = list(tmp_path.glob("*tokens.json"))
    assert [path.stat().st_mode & 0o077 for path in kept] == [0] * files
