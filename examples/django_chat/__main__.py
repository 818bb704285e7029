"""``python -m examples.django_chat``: what ``manage.py`` is elsewhere, and ``runserver`` where no command is given."""

import os
import sys

from django.core.management import execute_from_command_line

from examples.development import prepare

EMULATOR = "--emulator"

# runserver starts a second process, and again when a file changes, with what is in sys.argv and in the environment:
# so the emulator is in the first process alone.
prepare(emulated=EMULATOR in sys.argv)
sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != EMULATOR] or ["runserver"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_chat.settings")
execute_from_command_line(sys.argv)
