"""``python -m copilot_sync`` is ``copilot-sync``."""

from copilot_sync.cli import main

main()
