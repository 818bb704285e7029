"""What ``tox -e docs`` does with the documentation, for people and for continuous integration.

``python .ci/docs.py FOLDER`` builds the site into ``FOLDER/html``, runs all checks and prints where to open the site.
Further arguments go to pytest. ``python .ci/docs.py FOLDER serve [PORT]`` builds the site and serves it on this
machine, until Ctrl-C.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parents[1]


def build(builder: str, into: Path, read: Path, language: str = "en") -> None:
    """Have Sphinx write something; a warning is an error. What it reads is kept, for builders that follow."""
    options = [*["-W", "--keep-going", "-q"], "-D", f"language={language}", "-d", str(read)]
    command = [sys.executable, "-m", "sphinx", *options, "-b", builder, "docs", str(into)]
    subprocess.run(command, check=True, cwd=ROOT)


def build_site(site: Path) -> None:
    """Build the English site, and the Russian one in its folder ``ru``."""
    build("html", site, site / ".doctrees")
    build("html", site / "ru", site / "ru" / ".doctrees", "ru")


def check(folder: Path, arguments: List[str]) -> None:
    """Run the doctests, then type and check the pages, on the site that was built."""
    build("doctest", folder / "doctest", folder / "html" / ".doctrees")
    subprocess.run(
        [
            *[sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadfile"],
            *["-o", f"cache_dir={folder / 'pytest_cache'}", "tests/pages", *arguments],
        ],
        check=True,
        cwd=ROOT,
        env={**os.environ, "SITE": str(folder / "html")},
    )


def serve(site: Path, port: int) -> None:
    """Serve a folder on the loopback interface until Ctrl-C."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=str(site))) as server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> int:
    """Build the site, and check or serve it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where everything is built")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="serve [PORT], or arguments for pytest")
    given = parser.parse_args()
    port = next(iter(given.arguments[1:]), "8000")
    if given.arguments[:1] == ["serve"] and not (port.isdecimal() and int(port) < 65536):
        parser.error(f"{port} is no port: serve takes a number below 65536")
    folder: Path = given.folder.resolve()
    site = folder / "html"
    try:
        build_site(site)
        if given.arguments[:1] == ["serve"]:
            serve(site, int(port))
            return 0
        check(folder, given.arguments)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130
    print(f"Open {(site / 'index.html').as_uri()}, or serve it: python -m tox -e docs -- serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
