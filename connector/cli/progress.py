"""How far a command has come: a progress bar on a terminal, over work on the records of topics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from connector.config.kafka import KafkaSettings
from connector.deadletters.working import Job, R, Spans, size_of, work
from connector.memory import calm_collector


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal while the context lasts; yields a function to call with each increment."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:  # rich before 14.3 writes an empty line for a disabled bar
        yield lambda _count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def worked(kafka: KafkaSettings, spans: Spans, job: Job[R], what: str, *, quiet: bool = False) -> Iterator[R]:
    """Yield a job's results for the spans, with a progress bar on a terminal."""
    calm_collector()
    with progress(what, size_of(spans), quiet=quiet) as told:
        yield from work(kafka, spans, job, told)
