"""What both chats share: the page with its script and style, and what they send to it.

Nothing here knows Flask or Django, nor how a question is asked. The model's words are hostile input: they become HTML
in ``as_html`` alone, and ``SECURITY_HEADERS`` keeps a browser from running any of it should that ever fail.
"""

import os
from html import escape
from pathlib import Path
from typing import Any, Dict, List, Mapping
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

from copilot_sync import CopilotError, Message, RetryPolicy
from copilot_sync.contrib.sse import public_message
from copilot_sync.message_tree import newest_branch

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Over HTTPS the CSRF protections want to see that a request comes from this site.
    "Referrer-Policy": "same-origin",
}

#: Seconds. A server notices that a browser has gone by what it can't send. Comments as close as this end an answer
#: within a second of Stop also while the model is silent.
HEARTBEAT = 0.3

#: Somebody is looking on: better be told soon that it does not work than be kept waiting.
RETRY = RetryPolicy(attempts=3, max_wait=5.0)

#: The session is a cookie, for which browsers have 4 KB, so it holds so many conversations with names so long.
MOST_CONVERSATIONS = 12
LONGEST_NAME = 60

#: Characters, and places in a table, of what is made HTML of. More is shown as it came.
_LONGEST = 100_000
_LARGEST_TABLE = 100_000
#: Brackets in which a link is looked for: each may take as long as a hundred words. Those after them are shown.
_MOST_BRACKETS = 2_000


def as_html(markdown: str) -> str:
    """Give the model's Markdown as HTML that is safe to show.

    HTML in it is shown as text. Links lead to the web and to mail, and images are left to their addresses, because
    loading one tells somebody else what is read here. A little Markdown can't become very much HTML: a link has its
    address with it, because a long one in another place could be named any number of times, and a large table, which
    is filled up with empty places, stays text. Nor can it take very long: behind the first two thousand brackets no
    more links are looked for.
    """
    if len(markdown) > _LONGEST or _places(markdown) > _LARGEST_TABLE:
        return f"<pre>{escape(markdown)}</pre>"
    parser = MarkdownIt("js-default").disable(["image", "reference"])
    parser.core.ruler.at("inline", _read_inline)
    parser.validateLink = _may_be_linked  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _open_link)
    parser.add_render_rule("th_open", _open_cell)
    parser.add_render_rule("td_open", _open_cell)
    html: str = parser.render(markdown)
    return html


def _read_inline(state: Any) -> None:
    """Read the text inside of blocks, and leave the rest as it is once there were too many brackets."""
    brackets = 0
    for token in state.tokens:
        if token.type == "inline":
            brackets += token.content.count("[")
            token.children = []
            if brackets <= _MOST_BRACKETS:
                state.md.inline.parse(token.content, state.md, state.env, token.children)
            else:
                token.children.append(Token("text", "", 0, content=token.content))


def _places(markdown: str) -> int:
    """The most that a table in it can have: its widest line in each of its lines."""
    return markdown.count("\n") * max(line.count("|") for line in markdown.split("\n"))


def _may_be_linked(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    # Without a host it would be a place of this site.
    return parts.scheme == "mailto" or (parts.scheme in ("http", "https") and bool(parts.netloc))


def _open_link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    html: str = renderer.renderToken(tokens, index, options, env)
    return html


def _open_cell(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    # The browser may not take styles from what is shown, so the alignment of a column is a class.
    style = tokens[index].attrs.pop("style", None)
    if style is not None:
        tokens[index].attrSet("class", style.replace("text-align:", ""))
    html: str = renderer.renderToken(tokens, index, options, env)
    return html


def shown(messages: List[Message]) -> List[Dict[str, str]]:
    """Give what the page needs of a conversation to show it again: of each message of its newest branch."""
    return [_shown(message) for message in newest_branch(messages)]


def _shown(message: Message) -> Dict[str, str]:
    if message.role == "assistant":
        return {"role": "assistant", "html": as_html(message.content), "id": message.id}
    return {"role": "user", "text": message.content}


def told(error: CopilotError) -> Dict[str, Any]:
    """Give what the page is told of an error: words for a person, and nothing of the cause."""
    return {"message": public_message(error).message, "retry_after": getattr(error, "retry_after", None)}


def is_name(name: str) -> bool:
    """Tell whether the session may keep a conversation under this name, which the page has made up."""
    return 0 < len(name) <= LONGEST_NAME


def secret_key() -> str:
    """Give the key that signs the sessions. All processes of a site need the same one.

    Raises:
        RuntimeError: There is none in the environment.
    """
    key = os.environ.get("SECRET_KEY")
    if not key:
        raise RuntimeError("set SECRET_KEY to a long random text, such as that of: openssl rand -hex 32")
    return key
