"""Questions on each plan, of a model that is retired, and in a thread of three branches, as whole programs."""

import json
import subprocess
import sys
from typing import List, Tuple

from command_line import command, environment

from copilot_sync import Client
from copilot_sync.emulator import Emulator


def ran(*arguments: str, stdin: str = "") -> Tuple[int, str, str]:
    """The program's status, and what it wrote to stdout and stderr."""
    done = subprocess.run(
        command(*arguments), env=environment(), check=False, capture_output=True, input=stdin.encode()
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def models_asked(emulator: Emulator) -> List[str]:
    return [request.json["model"] for request in emulator.requests if request.stage == "message"]


#: What a program of the documented class is, with its defaults.
DOCUMENTED = """
import logging
from copilot_sync import GithubCopilot
logging.basicConfig()
print(GithubCopilot.create_completion("", [{"role": "user", "content": "hello"}]))
"""


def test_a_free_plan_answers_whoever_names_no_model(served: Emulator) -> None:
    """The command line, and the documented class with its default, which is tried first."""
    served.options.plan = "free"
    assert ran("ask", "hello") == (0, "hello\n", "")
    assert models_asked(served) == ["auto"]
    done = subprocess.run([sys.executable, "-c", DOCUMENTED], env=environment(), check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"hello\n")
    assert b"'gpt-4o'" in done.stderr
    assert b"'auto'" in done.stderr
    assert models_asked(served) == ["auto", "gpt-4o", "auto"]


def test_a_free_plan_says_why_a_model_is_refused(served: Emulator) -> None:
    """With the one that is answered, and no litter."""
    served.options.plan = "free"
    status, out, err = ran("ask", "--model", "gpt-5.5", "hello")
    assert (status, out) == (1, "")
    assert "'gpt-5.5'" in err
    assert '"auto" is answered on every plan' in err
    assert "the service lists no other model that this account may use" in err
    assert not served.threads


def test_a_batch_on_a_free_plan(served: Emulator) -> None:
    served.options.plan = "free"
    status, out, _ = ran("batch", "-", "-o", "-", stdin='{"id": 1, "prompt": "hello"}\n')
    assert status == 0
    assert json.loads(out)["text"] == "hello"


def test_an_account_without_copilot_is_told_so(served: Emulator) -> None:
    served.options.plan = "none"
    status, out, err = ran("ask", "hello")
    assert (status, out) == (1, "")
    assert "No access to GitHub Copilot found" in err
    assert "sign in again" not in err


def test_a_model_that_is_retired_between_two_questions(served: Emulator) -> None:
    """The second question is refused with the nearest names; the conversation goes on with another model."""
    assert ran("ask", "--model", "gpt-5.4-mini", "one")[0] == 0
    served.options.models = [each for each in served.options.models if "gpt-5.4-mini" not in str(each)]
    status, out, err = ran("ask", "--continue", "--model", "gpt-5.4-mini", "two")
    assert (status, out) == (1, "")
    assert "the model 'gpt-5.4-mini'" in err
    assert "did you mean gpt-5" in err
    assert ran("ask", "--continue", "two")[:2] == (0, "two\n")
    [thread] = served.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "two"]
    assert thread.user_messages[1]["parentMessageID"] == thread.assistant_messages[0]["id"]


def test_a_thread_of_three_branches_goes_on_from_the_newest(served: Emulator) -> None:
    """Known by its id alone; ``threads show`` shows that branch, says that there are others, and lists all."""
    with Client() as client:
        chat = client.chat()
        chat.ask("first")
        chat.ask("second")
        chat.retry()
        newest = chat.edit("third")
    thread_id = newest.conversation.conversation_id
    status, out, err = ran("threads", "show", thread_id)
    assert (status, out.count("first"), out.count("second"), out.count("third")) == (0, 2, 0, 2)
    assert err.startswith("2 other branches")
    assert ran("threads", "show", "--all", thread_id)[1].count("second") == 4
    assert ran("ask", "--conversation", thread_id, "fourth")[:2] == (0, "fourth\n")
    question = served.threads[thread_id].user_messages[-1]
    assert (question["content"], question["parentMessageID"]) == ("fourth", newest.message_id)


def test_the_last_conversation_goes_on_after_its_messages_are_gone(served: Emulator) -> None:
    """In the same thread, with a warning."""
    assert ran("ask", "one")[0] == 0
    assert ran("ask", "--continue", "two")[0] == 0
    [thread_id] = served.threads
    served.expire_messages(thread_id)
    status, out, err = ran("ask", "--continue", "three")
    assert (status, out) == (0, "three\n")
    assert "the last message of the conversation is gone" in err
    assert list(served.threads) == [thread_id]
