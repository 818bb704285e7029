"""Each block of code in the documentation runs as it stands, with nothing but the environment set.

It prints what the page shows right behind it: see ``tests/blocks.py``. Those in tabs and lists count too. A page is
here unless a module of ``tests`` of its own runs its blocks, or types it from the first line to the last.
"""

import ssl
from pathlib import Path
from typing import Iterator
from urllib.parse import urlsplit

import pytest
from blocks import DOCS, Block, blocks_of, elements, name_of, prepare, type_block
from support import Peer, Server, authority

from copilot_sync.emulator import Emulator

#: Pages whose blocks other tests run.
_ELSEWHERE = {
    "batch",
    "celery",
    "chat_page",
    "cli",
    "contributing",
    "data",
    "deployment",
    "emulator",
    "examples",
    "gateway",
    "jupyter",
    "langchain",
    "limits",
    "messages",
    "observability",
    "protocol",
    "structured",
    "testing",
    "usage",
    "web",
}


BLOCKS = [
    block
    for path in sorted(DOCS.glob("*.rst"))
    if path.stem not in _ELSEWHERE and not path.stem.startswith("lesson_")
    for block in blocks_of(path, "python", "sh")
    if not block.is_not_run
]


#: What stands in comments: see ``tests/blocks.py`` and ``tests/pages/lessons.py``.
_COMMENTS = {"ctrl-c", "fails", "needs", "not printed", "not run", "sees", "server", "stop"}


@pytest.fixture
def _in_a_company(served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The internet is behind a proxy, which reads encrypted traffic and shows certificates of its own."""
    hosts = {"github.com": served.github_url, "api.individual.githubcopilot.com": served.api_url}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*hosts).configure_cert(context)

    def tunnel(peer: Peer) -> None:
        host, _, _ = peer.receive().split()[1].decode().partition(":")
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.secure(context)
        peer.relay(urlsplit(hosts[host]).port or 0)

    certificates = tmp_path / "ca-certificates.crt"
    authority().cert_pem.write_to_path(str(certificates))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates))
    for name in ("COPILOT_SYNC_GITHUB_URL", "COPILOT_SYNC_API_URL"):
        monkeypatch.delenv(name)
    with Server(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://ann:secret@"))
        yield


#: What a block needs besides, by its page and text.
_NEEDS = {("proxies", "copilot-sync doctor"): "_in_a_company"}


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_each_block_runs(block: Block, served: Emulator, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In an empty folder, with a login, and with the files that pages name."""
    prepare(tmp_path, served)
    if (block.page, block.text) in _NEEDS:
        request.getfixturevalue(_NEEDS[block.page, block.text])
    type_block(block, tmp_path)


def test_no_other_page_shows_an_output() -> None:
    """But for the one whose test compares it too. Whoever adds one says who does."""
    shown = {block.page for page in _ELSEWHERE for block in blocks_of(DOCS / f"{page}.rst") if block.shown is not None}
    assert shown == {"observability"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.rst")), ids=lambda page: page.stem)
def test_each_comment_is_one_that_is_read(page: Path) -> None:
    """One that is misspelled says nothing."""
    assert {each.name for each in elements(page) if each.is_comment} <= _COMMENTS
