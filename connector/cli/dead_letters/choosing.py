"""The options of every command on dead letters: where they are, and which are selected.

The options are defined once, as the parameters of `_options`; `chosen` adds them to a command, which gets one value.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from connector.app.loading import load
from connector.cli.arguments import SettingsFile, topic_named
from connector.cli.errors import CommandError, reported
from connector.cli.progress import worked
from connector.clock import now_ms
from connector.config.settings import Settings
from connector.core.reasons import REASONS
from connector.deadletters.running import count, find, spans_of, topics_of_streams
from connector.deadletters.selection import Criteria, InvalidFilterError, Seen, read_position, read_time
from connector.deadletters.working import Spans, Work
from connector.telemetry.logging import disarm, silence_client

PANEL: Final = "Which dead letters"


def _options(  # noqa: PLR0917 (never called: its parameters are options)
    settings: SettingsFile,
    stream: Annotated[
        list[str] | None, typer.Option(help="Only those of this stream, in its dead-letter topic; may be repeated.")
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="A dead-letter topic, of any origin; may be repeated. Without it, those of the settings."),
    ] = None,
    reason: Annotated[list[str] | None, typer.Option(help="Reason; may be repeated.", rich_help_panel=PANEL)] = None,
    code: Annotated[
        list[str] | None, typer.Option(help="The platform's own code; may be repeated.", rich_help_panel=PANEL)
    ] = None,
    status: Annotated[
        list[int] | None, typer.Option(help="HTTP status; may be repeated.", rich_help_panel=PANEL)
    ] = None,
    source_topic: Annotated[
        list[str] | None, typer.Option(help="Topic of the record; may be repeated.", rich_help_panel=PANEL)
    ] = None,
    list_number: Annotated[
        list[str] | None, typer.Option(help="List that the record goes to; may be repeated.", rich_help_panel=PANEL)
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="Key, as text; may be repeated.", rich_help_panel=PANEL)] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Not older than this: an ISO 8601 time, or 90m, 24h, 7d ago.", rich_help_panel=PANEL),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Older than this.", rich_help_panel=PANEL)] = None,
    min_redrives: Annotated[
        int | None, typer.Option(min=0, help="Sent again at least this many times.", rich_help_panel=PANEL)
    ] = None,
    max_redrives: Annotated[
        int | None, typer.Option(min=0, help="Sent again at most this many times.", rich_help_panel=PANEL)
    ] = None,
    position: Annotated[
        list[str] | None,
        typer.Option(
            help="TOPIC:PARTITION:OFFSET of the dead letter, its source or its origin, or PARTITION:OFFSET of the "
            "dead letter; may be repeated.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="JMESPath over value, headers, key, reason, ...: \"value.body=='Hi'\".", rich_help_panel=PANEL
        ),
    ] = None,
) -> None:
    """Hold the options of every command."""


@dataclass(frozen=True)
class Chosen:
    """Where dead letters are and which are selected; everything is loaded and checked on first use."""

    path: Path
    streams: tuple[str, ...]
    topics: tuple[str, ...]
    asked: dict[str, Any] = field(repr=False)

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings."""
        loaded = load(self.path, asks={"kafka", "registry"})
        known = {stream.name for stream in loaded.streams}
        for name in self.streams:
            if name not in known:
                raise CommandError(f"{self.path} has no stream {name}", way_out=f"one of: {_listed(known)}")
        silence_client()
        return loaded

    @functools.cached_property
    def criteria(self) -> Criteria:
        """The filters."""
        asked, at_ms = self.asked, now_ms()
        try:
            return Criteria(
                reasons=frozenset(asked["reason"] or ()),
                codes=frozenset(asked["code"] or ()),
                statuses=frozenset(asked["status"] or ()),
                source_topics=frozenset(asked["source_topic"] or ()),
                list_numbers=frozenset(asked["list_number"] or ()),
                keys=frozenset(asked["key"] or ()),
                streams=frozenset(self.streams),
                positions=frozenset(read_position("--position", place) for place in asked["position"] or ()),
                since_ms=read_time("--since", asked["since"], now_ms=at_ms),
                until_ms=read_time("--until", asked["until"], now_ms=at_ms),
                min_redrives=asked["min_redrives"],
                max_redrives=asked["max_redrives"],
                where=asked["where"],
                settings=self.settings,
            )
        except InvalidFilterError as error:
            raise CommandError(str(error), way_out="correct it, see --help") from error

    @property
    def as_spelled(self) -> dict[str, Any]:
        """The filters as typed: equal ones identify the same redrive."""
        return {"streams": self.streams, "topics": self.dead_letter_topics} | {
            name: value for name, value in self.asked.items() if value
        }

    @functools.cached_property
    def dead_letter_topics(self) -> tuple[str, ...]:
        """The topics to read, without duplicates."""
        if self.topics:
            return tuple(dict.fromkeys(topic_named("--topic", topic) for topic in self.topics))
        return topics_of_streams(self.settings, self.streams)

    def spans(self, *, whole: bool = False) -> Spans:
        """Return the offsets to read, from `--since` on unless `whole`."""
        return spans_of(self.settings, self.dead_letter_topics, since_ms=None if whole else self.criteria.since_ms)

    def work(self, *, quiet: bool) -> Work:
        """Return how topics are scanned: with a progress bar on a terminal unless `quiet`."""
        return functools.partial(worked, self.settings.kafka, quiet=quiet)

    def tell_unjudged(self, seen: Seen) -> None:
        """Report how many dead letters the filters could not judge, if any."""
        failed = seen.where_failed
        if failed:
            total = failed.total()
            whys = ", ".join(f"{why} ({count:,})" for why, count in failed.most_common(3))
            typer.echo(
                f"--where fails on {total:,} dead letter{'s' if total > 1 else ''}, which are left out: "
                f"{disarm(whys)}\n"
                "hint: correct it, or check the type first, as in \"type(value.n)=='number' && abs(value.n) > `1`\"",
                err=True,
            )
        self.tell_no_event(seen.no_event)

    def tell_no_event(self, no_event: Mapping[str, int], *, so: str = "--list-number leaves them out") -> None:
        """Report for how many dead letters no event can be shaped now, if any, and the consequence."""
        if not no_event:
            return
        counts = ", ".join(f"{why} {count:,}" for why, count in sorted(no_event.items()))
        total = sum(no_event.values())
        way_out = (
            f"ask the registry: trackly-connector check {self.path} --online"
            if "schema_registry" in no_event
            else f"see why: export them, and trackly-connector explain {self.path} --stream STREAM --sample FILE"
        )
        typer.echo(
            f"of {total:,} dead letter{'s' if total > 1 else ''} no event can be made now ({counts}), with the "
            f"settings of their stream; list and number are unknown, so {so}.\nhint: {way_out}",
            err=True,
        )

    def has_older(self) -> bool:
        """Return whether there are dead letters that `--since` left out."""
        if self.criteria.since_ms is None:
            return False
        # Offsets alone do not show it: transaction markers have some as well.
        return bool(find(self.work(quiet=True), self.spans(whole=True), Criteria(), 1)[0])

    def refuse_unknown_reasons(self, seen: Collection[str]) -> None:
        """Raise `CommandError` for a reason that is not ours and that no dead letter has, if there are any.

        One of ours that no dead letter has is just a filter that selects none.
        """
        strange = self.criteria.reasons - set(seen) - set(REASONS)
        existing = set(seen) | self._reasons_of_older() if strange else set(seen)
        unknown = sorted(strange - existing)
        if unknown and existing:
            raise CommandError(
                f"no dead letter has the reason {_listed(unknown)}", way_out=f"those that exist: {_listed(existing)}"
            )

    def _reasons_of_older(self) -> set[str]:
        """Return the reasons of all dead letters, if `--since` left some out."""
        if self.criteria.since_ms is None:
            return set()
        return count(self.work(quiet=True), self.spans(whole=True), Criteria(reasons=self.criteria.reasons))[1].reasons


def _listed(names: Iterable[str]) -> str:
    """Return names for a message; names from dead letters may contain anything."""
    return disarm(", ".join(sorted(names)))


def chosen(command: Callable[..., None]) -> Callable[..., None]:
    """Add every option of `_options` to a command; it gets a `Chosen` first, and its own options as they are."""
    shared = inspect.signature(_options).parameters
    first, *own = inspect.signature(command).parameters.values()
    arguments = [p for p in own if isinstance(_info(p), typer.models.ArgumentInfo)]
    others = [p for p in own if p not in arguments]
    settings, *filters = shared.values()
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (settings, *arguments, *others, *filters)
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        asked = {name: given.pop(name) for name in shared}
        path, streams, topics = asked.pop("settings"), asked.pop("stream"), asked.pop("topic")
        with reported():
            command(Chosen(path, tuple(sorted(streams or ())), tuple(topics or ()), asked), **given)

    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapped.__wrapped__  # it has a different signature
    assert first.name == "chosen"
    return wrapped


def _info(parameter: inspect.Parameter) -> Any:
    return next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
