"""``copilot-sync batch``: read a file of prompts, write a file of results, and show the progress on stderr.

``copilot_sync.batch`` runs the batch. This module shows it: a progress bar on a terminal, a line every few seconds
elsewhere, and a summary at the end, however the batch ends.
"""

import contextlib
import importlib.util
import os
import shlex
import sys
import time
from collections import Counter
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple
from typing import Counter as CounterType

import click

from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.output_forms import FORMS as OUTPUT_FORMS
from copilot_sync.batch.output_forms import OutputForm
from copilot_sync.batch.prompt_files import FORMATS, PromptFile, read
from copilot_sync.batch.results import Result
from copilot_sync.batch.runs import Run, run
from copilot_sync.cli import options
from copilot_sync.cli.backend import Backend, open_backend, report_usage_errors
from copilot_sync.cli.durations import duration
from copilot_sync.cli.language import _, marked
from copilot_sync.cli.output import show_json
from copilot_sync.cli.question import read_attachments
from copilot_sync.cli.schemas import read_expectation
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.cli.waits import ROOM, WaitsIn, words_of
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, pace_for
from copilot_sync.settings import Timeout
from copilot_sync.stepping import Delay
from copilot_sync.structured import REPAIRS
from copilot_sync.user_folders import cache_folder

FAILED = 1
SOME_FAILED = 3
#: Seconds between two lines of progress if stderr is not a terminal.
_BETWEEN_LINES = 10.0
#: Why everybody waits.
_PAUSE = marked("the service asked to slow down, or failed")
#: Stands for stdout. A file of that name is ``./-``.
_STDOUT = "-"
#: Stands for the user's own folder of answers.
_OWN_CACHE = ""


@click.command(
    epilog="""\b
Examples:
  copilot-sync batch prompts.jsonl -o results.jsonl --rate 20
  copilot-sync batch prompts.jsonl -o results.jsonl --retry-failed
  copilot-sync batch requests.jsonl -o responses.jsonl --format openai
  cut -f 2 questions.tsv | copilot-sync batch - --format text -o results.jsonl
"""
)
@click.argument("prompts", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    *("-o", "--output"),
    metavar="OUT",
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help='File for the results; "-" is stdout.',
)
@click.option(
    "--format",
    "form",
    metavar="NAME",
    type=click.Choice(FORMATS),
    help="jsonl, csv, text or openai.  [default: from IN's suffix]",
)
@click.option("-m", "--model", metavar="ID", help='The model.  [default: as "config" says]')
@click.option("-s", "--system", metavar="TEXT", help="Instructions for the model.  [default: none]")
@options.files
@click.option("--workers", metavar="N", type=click.IntRange(1), help="Prompts at once.  [default: 2; emulator: 8]")
@click.option(
    "--rate",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    help="Prompts per minute.  [default: 20; emulator: any]",
)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    help="Seconds per answer.  [default: no limit]",
)
@click.option("--max-failures", metavar="N", type=click.IntRange(1), help="Stop after N failures.  [default: never]")
@click.option("--ordered", is_flag=True, help="Write results in IN's order.  [default: as they come in]")
@click.option("--retry-failed", is_flag=True, help="Ask failed prompts again.  [default: skip them]")
@click.option("--delete-threads", is_flag=True, help="Delete the new conversations.  [default: keep them]")
@click.option(
    "--cache",
    metavar="[FOLDER]",
    is_flag=False,
    flag_value=_OWN_CACHE,
    type=click.Path(file_okay=False),
    help="Reuse kept answers, keep new ones.  [default: neither]",
)
@options.schema
@options.repairs
@options.label
@click.option("--emulator", "emulated", is_flag=True, help="Ask an emulator in this process, without an account.")
def batch(
    prompts: str,
    output: str,
    form: Optional[str],
    model: Optional[str],
    files: Tuple[str, ...],
    timeout: Optional[float],
    retry_failed: bool,
    cache: Optional[str],
    schema: Optional[str],
    repairs: Optional[int],
    emulated: bool,
    **others: Any,
) -> int:
    """Ask every prompt of IN and write each result to OUT as a line of JSON.

    IN is JSON Lines ({"id", "prompt" or "messages", "model", "system", "conversation", "files", "schema"}), CSV
    with columns of these names, or text with one prompt per line; "-" is stdin, which is read to its end first.
    With --format openai, IN and OUT are those of OpenAI's batches. With --schema, answers are JSON that fits it. To
    continue a batch that stopped, run the same command again; this needs an OUT other than "-". All prompts use one
    account, and a burst of requests may get it suspended.
    """
    is_kept = output != _STDOUT
    _check_output(prompts, output, retry_failed)
    attachments = read_attachments(files)
    expected = read_expectation(schema, repairs, emulated=emulated)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_open_prompts(prompts, form))
        has_bar = _has_bar(output == _STDOUT)
        backend = stack.enter_context(_backend(emulated, cache, others, WaitsIn.BAR if has_bar else WaitsIn.LOG))
        concurrency, rate = pace_for(backend.client.api_url, *backend.pace)
        limiter = RateLimiter(concurrency, rate=rate)
        output_format = source.format if source.format in OUTPUT_FORMS else "jsonl"
        with report_usage_errors():
            results = run(
                source,
                client=backend.client,
                model=model,
                files=attachments,
                output=output if is_kept else None,
                output_format=output_format,
                retry_failed=retry_failed,
                schema=expected and expected.schema,
                repairs=REPAIRS if repairs is None else repairs,
                timeout=None if timeout is None else Timeout(total=timeout),
                workers=concurrency,
                rate_limiter=limiter,
                **{name: value for name, value in others.items() if value is not None},
            )
        tally = Tally(stack.enter_context(results), limiter, waits=backend.waits.words)
        return _show_results(tally, output, OUTPUT_FORMS[output_format], has_bar=has_bar)


def _backend(emulated: bool, cache: Optional[str], others: Dict[str, Any], waits: WaitsIn) -> ContextManager[Backend]:
    workers, rate = others.pop("workers"), others.pop("rate")
    pace = workers, BY_HOST if rate is None else rate
    return open_backend(emulated, pace=pace, waits=waits, answer_cache=_answer_cache(cache, emulated))


def _answer_cache(folder: Optional[str], emulated: bool) -> Optional[str]:
    """Return the folder of answers. Those of an emulator are not kept."""
    if emulated:
        return None
    return os.path.join(cache_folder(), "answers") if folder == _OWN_CACHE else folder


def _check_output(prompts: str, output: str, retry_failed: bool) -> None:
    if output == _STDOUT and retry_failed:
        raise click.UsageError(_("--retry-failed needs the file that holds the failed results, and -o - is stdout"))
    if _STDOUT not in (prompts, output) and os.path.exists(output) and os.path.samefile(prompts, output):
        words = _("{file} is the file of the prompts: name another one for the results")
        raise click.UsageError(words.format(file=output))


def _open_prompts(prompts: str, form: Optional[str]) -> PromptFile:
    with report_usage_errors():
        return read(sys.stdin.buffer if prompts == "-" else prompts, form)


def _show_results(tally: "Tally", output: str, form: OutputForm, *, has_bar: bool) -> int:
    """Run the batch, show its progress, and return the exit status."""
    shows_summary = True
    try:
        with _progress(tally, has_bar) as show, report_usage_errors():
            for result in tally.results:
                if output == _STDOUT:
                    show_json(form.fields_of(result))
                tally.count(result)
                show()
    except BrokenPipeError:  # the reader of the results wants no more of them
        shows_summary = False
        raise
    except (click.ClickException, JournalError):  # nothing to sum up if nothing was started
        shows_summary = tally.done > 0
        raise
    finally:
        # Also after Ctrl-C and after errors, which are reported elsewhere.
        for line in tally.summary(output, _command()) if shows_summary else ():
            click.echo(line, err=True)
    return tally.status


def _command() -> List[str]:
    """Return the command that runs, as it was typed."""
    return ["copilot-sync", *click.get_current_context().find_root().ensure_object(dict).get("arguments", ())]


class Tally:
    """The counts of a batch, and the texts made of them.

    Args:
        results: The batch.
        limiter: What lets its prompts through.
        waits: Says what its client waits for; ``""`` for nothing.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        results: Run,
        limiter: RateLimiter,
        *,
        waits: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.results = results
        self._limiter = limiter
        self._waits = waits
        self._clock = clock
        self._began = clock()
        self._seconds: CounterType[float] = Counter()
        self.answered = 0
        self.cached = 0
        self.failed = 0
        self.input_tokens = 0
        self.output_tokens = 0

    def count(self, result: Result) -> None:
        """Count a result."""
        if result.error is not None:
            self.failed += 1
            return
        self.answered += 1
        if result.cached:  # it took no time and no tokens
            self.cached += 1
            return
        # Rounded to three digits, so that a million answers take little memory.
        self._seconds[float(f"{result.seconds:.3g}")] += 1
        if result.usage is not None:
            self.input_tokens += result.usage.input_tokens or 0
            self.output_tokens += result.usage.output_tokens or 0

    @property
    def done(self) -> int:
        """The number of prompts that have a result, including those of earlier runs."""
        return self.answered + self.failed + self.results.skipped

    @property
    def all_failed(self) -> int:
        """The number of those of them that have failed."""
        return self.failed + self.results.skipped_failures

    @property
    def total(self) -> Optional[int]:
        """The number of prompts, if it is known."""
        return self.results.total

    @property
    def rate(self) -> float:
        """Results per minute in this run."""
        return 60 * (self.answered + self.failed) / max(self._clock() - self._began, 0.001)

    @property
    def seconds_left(self) -> Optional[float]:
        """The expected time for the rest, if it can be estimated."""
        if self.total is None or not self.rate:
            return None
        return 60 * (self.total - self.done) / self.rate

    @property
    def status(self) -> int:
        """The exit status of a batch that ran to its end."""
        if not self.all_failed:
            return 0
        return SOME_FAILED if self.done > self.all_failed else FAILED

    def percentile(self, share: float) -> float:
        """The seconds within which the given share of the answers came."""
        wanted = share * (self.answered - self.cached)
        count = 0
        for seconds in sorted(self._seconds):
            count += self._seconds[seconds]
            if count >= wanted:
                return seconds
        return 0.0

    def waiting(self) -> str:
        """What the batch waits for; ``""`` for nothing."""
        pause = self._limiter.pause
        return words_of(Delay("service", pause, _(_PAUSE))) or self._waits()

    def progress(self) -> str:
        """How it goes: what failed, how fast it is, and how long it will take, or what it waits for."""
        left = self.seconds_left
        rest = self.waiting() or ("" if left is None else _("{time} left").format(time=duration(left)))
        failed = _("{count} failed").format(count=self.all_failed)
        rate = _("{count:.0f} a minute").format(count=self.rate)
        return ", ".join(filter(None, [failed, rate, rest]))

    def line(self) -> str:
        """The progress in one line."""
        done = _("{count} done") if self.total is None else _("{count} of {total} done")
        return f"{done.format(count=self.done, total=self.total)}, {self.progress()}"

    def summary(self, output: str, command: Sequence[str]) -> Iterator[str]:
        """The lines to print at the end.

        Args:
            output: The file of the results, or ``-``.
            command: What was typed.
        """
        yield ", ".join(self._counts())
        pauses, seconds = self._limiter.pauses
        if pauses:
            words = _("pauses: {count}, {time} in all, because {reason}")
            yield words.format(count=pauses, time=duration(seconds), reason=_(_PAUSE))
        if self.answered > self.cached:
            p50, p95 = self.percentile(0.5), self.percentile(0.95)
            yield _("seconds for an answer: p50 {p50:g}, p95 {p95:g}").format(p50=p50, p95=p95)
            yield _("tokens: {input} in, {output} out").format(input=self.input_tokens, output=self.output_tokens)
        if output != _STDOUT:
            yield _("results: {file}").format(file=output)
        if self.total is not None and self.done < self.total:
            again = "" if output == _STDOUT else _("; go on with: {command}").format(command=shlex.join(command))
            yield _("not done: {count}").format(count=self.total - self.done) + again
        elif output != _STDOUT and self.all_failed:
            typed = command if "--retry-failed" in command else [*command, "--retry-failed"]
            words = _("why prompts failed stands in the results; ask them again with: {command}")
            yield words.format(command=shlex.join(typed))

    def _counts(self) -> Iterator[str]:
        answered = _("answered: {count} ({cached} from the cache)") if self.cached else _("answered: {count}")
        yield answered.format(count=self.answered, cached=self.cached)
        yield _("failed: {count}").format(count=self.failed)
        if self.results.skipped:
            failed = self.results.skipped_failures
            before = _("done before: {count} ({failed} failed)") if failed else _("done before: {count}")
            yield before.format(count=self.results.skipped, failed=failed)
        yield _("in {time}").format(time=duration(self._clock() - self._began))


def _has_bar(has_results: bool) -> bool:
    """Whether the terminal can draw a bar. Results on the same terminal would break it apart."""
    is_shared = has_results and is_terminal(sys.stdout)
    is_able = is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
    return is_able and not is_shared and importlib.util.find_spec("rich") is not None


def _progress(tally: Tally, has_bar: bool) -> ContextManager[Callable[[], None]]:
    """Return a function that shows the current progress: as a bar, or as lines."""
    return _bar_progress(tally) if has_bar else contextlib.nullcontext(_LineProgress(tally))


class _LineProgress:
    """Prints a line of progress every few seconds."""

    def __init__(self, tally: Tally, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._clock = clock
        self._next = clock() + _BETWEEN_LINES

    def __call__(self) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + _BETWEEN_LINES
            click.echo(self._tally.line(), err=True)


def _bar_progress(tally: Tally) -> ContextManager[Callable[[], None]]:
    from rich.console import Console, RenderableType
    from rich.constrain import Constrain
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    console = Console(stderr=True)

    class Words(ProgressColumn):
        """Says how it goes. It is drawn ten times a second, also while there are no results."""

        def render(self, task: Task) -> Text:
            return Text(tally.progress())

    class Bar(Progress):
        """Leaves room at the right."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield Constrain(self.make_tasks_table(self.tasks), console.width - ROOM)

    columns = [BarColumn(), MofNCompleteColumn(), Words(Column(no_wrap=True))]
    progress = Bar(*columns, console=console, transient=True)
    task = progress.add_task("", total=None)

    def show() -> None:
        progress.update(task, total=tally.total, completed=tally.done)

    @contextlib.contextmanager
    def shown() -> Iterator[Callable[[], None]]:
        with progress:
            yield show

    return shown()
