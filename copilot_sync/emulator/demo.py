"""What the emulator says to somebody who tries the library out: prepared answers, which say that they are.

They show what an answer may hold (Markdown, code, a table). A question for a review, about a file, or for more gets
another one. The emulator repeats the question if nobody asks for these: tests want that.
"""

from __future__ import annotations

import re

from copilot_sync.emulator.demo_data import demo_data

_FIRST = """\
**This is a demo.** The answer was prepared: no model has read your question. Yours would stream in like this one.

From Python, you ask like this:

```python
import copilot_sync

with copilot_sync.Client() as client:
    for piece in client.stream("Explain WSGI in one line"):
        print(piece, end="", flush=True)
```

| To get | type |
|---|---|
| one answer | `copilot-sync ask "Explain WSGI in one line"` |
| a conversation | `copilot-sync chat` |
| many answers | `copilot-sync batch prompts.jsonl -o results.jsonl` |

Next, `copilot-sync doctor` says what your own account needs.
"""
_REVIEW = """\
**This is a demo review.** It was prepared: no model has read your change.

1. `total` is computed before the list is checked. An empty list ends in `ZeroDivisionError`.
2. The new branch has no test.

```diff
-    return total / len(rows)
+    return total / len(rows) if rows else 0.0
```

With an account, `git diff | copilot-sync ask "Review this"` reviews the change itself.
"""
_FILE = """\
**This is a demo.** It was prepared: no model has read your file.

- **What it does:** it reads rows, groups them by day and prints one line for each.
- **What to look at:** `parse_row` accepts a date without a time zone.

```python
def parse_row(text: str) -> Row:
    day, count = text.split(",")
    return Row(date.fromisoformat(day), int(count))
```

With an account, `copilot-sync ask --file app.py "What does it do?"` explains the file itself.
"""
_AGAIN = """\
**Still the demo**, with another prepared answer. A real conversation remembers what was said before:

> *You:* What is a generator?
> *You:* Show an example.

```python
def squares(numbers):
    for number in numbers:
        yield number ** 2
```

`copilot-sync ask --continue "And in Django?"` goes on with your last question.
"""
#: The first that is found in the question decides.
_ANSWERS = (
    (re.compile(r"^(diff --git |@@ |\+\+\+ )|\breview\b", re.MULTILINE | re.IGNORECASE), _REVIEW),
    (re.compile(r"\b(again|another|more)\b|^\s*and\b", re.IGNORECASE), _AGAIN),
    (
        re.compile(
            r"\bwhat does (it|this) do\b|\b(file|\w+\.(c|css|go|html|java|js|py|rs|sh|sql|ts|txt))\b", re.IGNORECASE
        ),
        _FILE,
    ),
)


def demo_answer(prompt: str) -> str:
    """Return the prepared answer to a question, as ``Reply`` takes it: ``Reply(demo_answer, pace=0.05)``.

    A question for data gets data, as ``demo_data`` makes it.
    """
    data = demo_data(prompt)
    if data is not None:
        return data
    return next((answer for pattern, answer in _ANSWERS if pattern.search(prompt)), _FIRST)
