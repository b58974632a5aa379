"""`dead-letters stats`, `list` and `show`: what there is, and why. Nothing is written."""

from typing import Annotated

import typer
from rich.text import Text

from connector.cli.arguments import AsJson
from connector.cli.dead_letters.choosing import Chosen, chosen
from connector.cli.dead_letters.showing import print_counts, print_json, print_letter, print_letters
from connector.cli.errors import CommandError, ExitCode
from connector.cli.printing import console, json_text
from connector.clock import now_ms
from connector.deadletters.running import count, find, find_at
from connector.deadletters.selection import InvalidFilterError, read_position
from connector.deadletters.telling import shown

AsLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Reveal = Annotated[
    bool,
    typer.Option(
        "--reveal", help="Show numbers, addresses, texts, keys and foreign headers, which are otherwise hidden."
    ),
]


@chosen
def stats(chosen: Chosen, *, as_json: AsJson = False) -> None:
    """Count dead letters by reason, code, source topic, stream and age, with a time line.

    Exit code 1: there are dead letters, but the filters select none of them.
    """
    at_ms = now_ms()
    sums, seen = count(chosen.work(quiet=as_json), chosen.spans(), chosen.criteria)
    chosen.refuse_unknown_reasons(seen.reasons)
    chosen.tell_unjudged(seen)
    if as_json:
        print_json({"topics": list(chosen.dead_letter_topics)} | sums.as_json(now_ms=at_ms))
    elif sums.total:
        out = console()
        out.print(Text(f"{sums.total:,} dead letters in {', '.join(chosen.dead_letter_topics)}", style="bold"))
        for column, title in enumerate(("by reason", "by code", "by source topic", "by stream")):
            print_counts(title, sums.by(column))
        print_counts("by age", sums.by_age(now_ms=at_ms))
        print_counts("time line (UTC)", dict(sums.time_line()), bars=True)
    if not sums.total:
        tell_none(chosen, any_there=bool(seen.reasons), quiet=as_json)


def tell_none(chosen: Chosen, *, any_there: bool, quiet: bool = False) -> None:
    """Report that nothing is selected; if there was something to select from, exit with code 1."""
    topics = ", ".join(chosen.dead_letter_topics)
    if any_there or chosen.has_older():
        way_out = "dead-letters stats without filters shows what there is"
        raise CommandError(f"the filters select none of the dead letters in {topics}", ExitCode.FAILED, way_out=way_out)
    if not quiet:
        typer.echo(f"no dead letters in {topics}")


@chosen
def list_letters(
    chosen: Chosen,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many to list at most.")] = 50,
    reveal: Reveal = False,
    as_json: AsLines = False,
) -> None:
    """List dead letters: position, reason, code, text, HTTP status, attempts, redrives and source.

    Exit code 1: there are dead letters, but the filters select none of them.
    """
    found, seen = find(chosen.work(quiet=as_json), chosen.spans(), chosen.criteria, limit + 1)
    found, has_more = found[:limit], len(found) > limit
    if not found:
        chosen.refuse_unknown_reasons(seen.reasons)
    chosen.tell_unjudged(seen)
    if not found:
        tell_none(chosen, any_there=bool(seen.reasons), quiet=as_json)
    elif as_json:
        for letter in found:
            typer.echo(json_text(shown(letter, reveal=reveal)))
    else:
        print_letters(found, reveal=reveal)
        if has_more:
            typer.echo(f"The first {limit}; --limit shows more, and stats counts all.", err=True)


@chosen
def show(
    chosen: Chosen,
    place: Annotated[
        str,
        typer.Argument(
            help="TOPIC:PARTITION:OFFSET of the dead letter, its source or its origin, or PARTITION:OFFSET.",
            metavar="POSITION",
            show_default=False,
        ),
    ],
    *,
    reveal: Reveal = False,
    as_json: AsLines = False,
) -> None:
    """Show everything about a dead letter: the failure, all headers, and the value.

    Exit code 1: there is none at that position.
    """
    try:
        position = read_position("POSITION", place)
    except InvalidFilterError as error:
        raise CommandError(str(error), way_out="correct it, see --help") from error
    found = find_at(chosen.work(quiet=as_json), chosen.spans(), chosen.criteria, position)
    if not found:
        topics = ", ".join(chosen.dead_letter_topics)
        way_out = "dead-letters list shows positions, --topic names another topic; retention removes what is old"
        raise CommandError(f"there is no dead letter at or from {place} in {topics}", ExitCode.FAILED, way_out=way_out)
    for letter in found:
        if as_json:
            typer.echo(json_text(shown(letter, reveal=reveal)))
        else:
            print_letter(letter, reveal=reveal)
