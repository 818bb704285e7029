"""Check the built distributions and lay out their test-suite: ``python check_package.py DIST_FOLDER``.

Run with the wheel installed and an empty working directory, which is then filled with what the sdist holds except for
the package itself: tests that run there can only import the wheel.
"""

import configparser
import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

PACKAGE = "copilot_sync"


def main(dist: Path) -> None:
    """Check everything, or leave with a sentence that says what is wrong."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    check_wheel(wheel)
    unpack_suite(sdist)
    check_installed()
    check_lower_bounds()


def check_wheel(wheel: Path) -> None:
    """The wheel holds the package, its type marker, the catalog of its Russian words and nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    strangers = [name for name in names if name.split("/")[0] != PACKAGE and ".dist-info/" not in name]
    expect(not strangers, f"{wheel.name} holds more than the package: {strangers}")
    for name in ("py.typed", "locale/ru/LC_MESSAGES/copilot-sync.mo"):
        expect(f"{PACKAGE}/{name}" in names, f"{wheel.name} lacks {PACKAGE}/{name}")


def unpack_suite(sdist: Path) -> None:
    """Unpack the sdist here, without the package."""
    shutil.unpack_archive(str(sdist))
    (root,) = Path().iterdir()
    for path in root.iterdir():
        if path.name != PACKAGE:
            path.rename(path.name)
    shutil.rmtree(root)


def check_installed() -> None:
    """What would be imported is the installed wheel."""
    sys.path.insert(0, "")
    spec = importlib.util.find_spec(PACKAGE)
    origin = spec.origin if spec else None
    expect(origin and Path(sys.prefix) in Path(origin).parents, f"{PACKAGE} comes from {origin}, not from the wheel")


def check_lower_bounds() -> None:
    """The lower bounds of setup.cfg are those that ``tox -e lowest`` tests."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    extras = config["options.extras_require"]
    tested_extras = [extras[name] for name in ("browser", "celery", "cli", "django", "flask", "llm")]
    requirements = "".join([config["options"]["install_requires"], *tested_extras])
    bounds = {line.split(",")[0].replace(">=", "==") for line in requirements.splitlines() if line}
    tested = set(Path("tests/constraints-lowest.txt").read_text(encoding="utf-8").splitlines())
    expect(bounds <= tested, f"tests/constraints-lowest.txt lacks {sorted(bounds - tested)}")


def expect(condition: object, message: str) -> None:
    """Leave with the message unless the condition holds."""
    if not condition:
        sys.exit(message)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
