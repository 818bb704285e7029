"""One token file, several processes that write it and are killed: no token is lost, and nothing is left beside it.

Each process keeps a token of its own in the file, renews it without end, and looks before each renewal whether the
last one is still there. The processes are killed at random instants, and others take their places. At the end one that
nobody kills writes once more.

Run it with ``python tests/stress/token_file.py [--short]``. It prints how many tokens were kept, how many of them were
gone because another process wrote, and how many other files are left.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measuring import Figures, settings

from copilot_sync.auth.caches import FileCache

FULL = {"kills": 300, "processes": 4}
SHORT = {"kills": 24, "processes": 4}
#: Seconds that a process lives at most, from its first token on.
LIFE = 0.5
#: Seconds that tokens are kept.
KEPT = 3600
#: Files that may be beside the token file: a lock, which holds no token.
OTHERS = 1
TOKEN = "a token that is alive, number"


def write(path: str, name: str) -> None:
    """Renew a token until this process is killed, and say which numbers were kept and which were lost."""
    cache, number = FileCache(path), 0
    while True:
        if number and cache.get(name) != f"{TOKEN} {number - 1}":
            os.write(1, b"lost\n")
        cache.set(name, f"{TOKEN} {number}", KEPT)
        os.write(1, f"{number}\n".encode())
        number += 1


def live_and_die(path: Path, name: str, seconds: float) -> "Counter[str]":
    """Let a process write for so long, kill it, and count what it said."""
    with subprocess.Popen([sys.executable, __file__, "--worker", str(path), name], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        said = (first + process.stdout.read()).decode().split()
    numbers = [int(word) for word in said if word != "lost"]
    stored = FileCache(path).get(name) or f"{TOKEN} -1"
    # One more may have been kept that it couldn't speak of any more.
    lost_at_last = int(stored.rpartition(" ")[2]) < numbers[-1]
    return Counter(kept=len(numbers), lost=said.count("lost") + lost_at_last)


def main() -> int:
    """Let processes live and die, and look at what is left."""
    given = settings(__doc__, FULL, SHORT)
    chance = random.Random(given.seed)
    lives = [chance.uniform(0, LIFE) for _ in range(given.kills)]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.json"
        with ThreadPoolExecutor(given.processes) as pool:
            names = [f"process-{number}" for number in range(given.kills)]
            for found in pool.map(live_and_die, [path] * given.kills, names, lives):
                counts.update(found)
        cache = FileCache(path)
        cache.set("the last", f"{TOKEN} 0", KEPT)
        missing = sum(cache.get(name) is None for name in [*names, "the last"])
        left = [file for file in Path(folder).iterdir() if file != path]
        with_tokens = sum(TOKEN.encode() in file.read_bytes() for file in left)
    figures = Figures()
    figures.note("processes that were killed", given.kills)
    figures.at_least("tokens that were kept", counts["kept"], given.kills)
    figures.at_most("tokens that another process's write lost", counts["lost"], 0)
    figures.at_most("processes without a token in the file", missing, 0)
    figures.at_most("files left beside it that hold tokens", with_tokens, 0)
    figures.at_most("files left beside it", len(left), OTHERS)
    return figures.status


if __name__ == "__main__":
    if "--worker" in sys.argv:
        write(*sys.argv[2:])
    else:
        sys.exit(main())
