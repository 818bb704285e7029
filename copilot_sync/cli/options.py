"""The options that several commands share, so that they read the same everywhere."""

import click

from copilot_sync.structured import REPAIRS

model = click.option("-m", "--model", metavar="ID", help='The model.  [default: as "config" says]')
system = click.option("-s", "--system", metavar="TEXT", help="Instructions for the model.  [default: none]")
files = click.option(
    *("-f", "--file", "files"),
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Attach a text file of up to 1 MiB. Repeatable.",
)
images = click.option("--image", "images", multiple=True, metavar="URL", help="Attach an image by https. Repeatable.")
timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Longest wait in all.  [default: no limit]",
)
proxy = click.option("--proxy", metavar="URL", help='A proxy.  [default: as "config" says]')
conversation = click.option("--conversation", metavar="ID", help="Continue a conversation.  [default: a new one]")
go_on = click.option(
    "-c", "--continue", "go_on", is_flag=True, help="Continue the last conversation.  [default: a new one]"
)
label = click.option("--label", metavar="TEXT", help='A name for "usage" to add up by.  [default: none]')
raw = click.option("--raw", is_flag=True, help="Print Markdown as it is.  [default: drawn in a terminal]")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
schema = click.option("--schema", metavar="SCHEMA", help="Fields or a JSON Schema's file to fit.  [default: none]")
repairs = click.option(
    *("--repairs", "repairs"),
    metavar="N",
    type=click.IntRange(min=0),
    help=f"With --schema, ask again so often.  [default: {REPAIRS}]",
)
script = click.option(
    "--script",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help='Replies and faults; "-" is stdin.  [default: none]',
)
emulated = click.option(
    "--emulator", "emulated", is_flag=True, help="Ask an emulator in this process, without an account."
)
