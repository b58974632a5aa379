"""`dead-letters export` and `import`: lines of JSON that preserve every byte."""

import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from connector.app.loading import load
from connector.cli.arguments import SettingsFile, topic_named
from connector.cli.dead_letters.choosing import Chosen, chosen
from connector.cli.dead_letters.reading import tell_none
from connector.cli.errors import CommandError, ExitCode, reported, why_unread
from connector.cli.progress import progress
from connector.deadletters.copying import bring_in, letters_in, look_through
from connector.deadletters.landing import why_not_set_aside_in
from connector.deadletters.lines import InvalidLineError, line_of
from connector.deadletters.preparing import topics_of
from connector.deadletters.selection import Seen
from connector.deadletters.working import size_of
from connector.kafka.call_thread import first_answer
from connector.memory import calm_collector


@chosen
def export(
    chosen: Chosen,
    *,
    out: Annotated[
        Path | None, typer.Option(help="File to write, which must not exist yet; standard output when left out.")
    ] = None,
) -> None:
    """Write dead letters as lines of JSON: numbers and texts unmasked, bytes that are not text as base64.

    Exit code 1: there are dead letters, but the filters select none of them.
    """
    spans = chosen.spans()
    calm_collector()
    count, seen = 0, Seen()
    with _opened(out) as write:
        with (
            chosen.criteria.judging(seen) as (matches, _),
            progress("exporting", size_of(spans), quiet=out is None) as told,
        ):
            for letter in letters_in(chosen.settings.kafka, spans, told):
                seen.reasons.add(letter.reason)
                if matches is None or matches(letter):
                    write(f"{line_of(letter)}\n")
                    count += 1
        chosen.refuse_unknown_reasons(seen.reasons)
        chosen.tell_unjudged(seen)
        if not count:
            tell_none(chosen, any_there=bool(seen.reasons), quiet=out is None)
    if count and out is not None:
        typer.echo(f"{count:,} dead letters in {out}")


@contextmanager
def _opened(path: Path | None) -> Iterator[Callable[[str], object]]:
    """Provide a writer of lines: to stdout, or to a file that gets its name only when it is complete.

    An incomplete file would look complete, and block the next try.
    """
    if path is None:
        yield sys.stdout.write
        sys.stdout.flush()
        return
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        # mkstemp makes it readable for its owner only.
        number, name = tempfile.mkstemp(prefix=".dead-letters.", suffix=".part", dir=path.parent)
        beginning = Path(name)
        file = os.fdopen(number, "w", encoding="utf-8", newline="\n")
    except OSError as error:
        way_out = "name a file that does not exist yet, in a writable folder"
        raise CommandError(f"--out cannot be written: {path}: {why_unread(error)}", way_out=way_out) from error

    def write(line: str) -> None:
        with _written(path):
            file.write(line)

    try:
        with _gone_when_killed(beginning):
            yield write
            with _written(path):
                file.close()
                beginning.rename(path)
    finally:
        with suppress(OSError):
            file.close()
        beginning.unlink(missing_ok=True)


@contextmanager
def _gone_when_killed(path: Path) -> Iterator[None]:
    """Remove a file before a signal ends the process without cleanup; Ctrl-C does not need this."""

    def end(number: int, _frame: object) -> None:
        path.unlink(missing_ok=True)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    # Signals with other handlers, such as SIGHUP under nohup, are left to them.
    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Report errors of the file system."""
    try:
        yield
    except OSError as error:
        way_out = "free space, or write the file elsewhere; nothing was left behind, so you can run the command again"
        raise CommandError(f"writing {path}: {error.strerror}", ExitCode.FAILED, way_out=way_out) from error


@reported()
def import_letters(
    settings: SettingsFile,
    file: Annotated[Path, typer.Argument(help="File written by export.", metavar="FILE", show_default=False)],
    *,
    to: Annotated[str, typer.Option(help="Topic to write to, which must exist.")],
) -> None:
    """Write the dead letters of a file to a topic: keys, values, headers and timestamps unchanged.

    Each line is written once, also after a restart. Not to a topic that a stream reads: redrive checks what it sends.
    Exit code 2: a line is not valid; nothing was written.
    """
    loaded = load(settings, asks={"kafka"})
    topic_named("--to", to)
    if why := why_not_set_aside_in(loaded, to):
        way_out = "import into a topic that no stream reads, then run dead-letters redrive --topic TOPIC"
        raise CommandError(f"--to {to} cannot be the target of an import: it {why}", way_out=way_out)
    try:
        export = look_through(file)
    except (OSError, InvalidLineError) as error:
        way_out = "give a file that dead-letters export wrote"
        raise CommandError(f"{file}: {why_unread(error)}", way_out=way_out) from error
    there = first_answer(loaded.kafka.request_timeout_secs, topics_of(loaded).facts, [to])[to]
    if there is None:
        raise CommandError(f"topic {to} does not exist", way_out="create it, or name another")
    with progress("importing", export.count) as told:
        count = bring_in(loaded.kafka, export, to, facts=there, told=told)
    before = f"; {export.count - count:,} were there before" if count < export.count else ""
    typer.echo(f"{count:,} dead letters written to {to}{before}")
